"""How many threads the kernel lets work at once, against simulated servers.

Covers: pace.c by itself, driven by a closed loop: n callers, each waits for its answer.
Does not cover: threads and clocks (test_kernel_sanitizers.py, tests/conformance/test_latency.py).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import pytest

from filesystems.kernel._walk import ffi, lib

STEP_S = 0.01
CORES = 2
THREADS_MAX = 128


@dataclass(frozen=True)
class Server:
    """Answers after latency_s, and no more than so many calls a second: then callers queue."""

    latency_s: float
    calls_per_s: float = 1e12
    cached: bool = False  # the client answers by itself: nothing waits

    def rate(self, callers: int) -> float:
        return min(callers / self.latency_s, self.calls_per_s)

    def latency(self, callers: int) -> float:
        return max(self.latency_s, callers / self.calls_per_s)

    @property
    def knee(self) -> float:
        """So many callers get all that it can do."""
        return self.latency_s * self.calls_per_s


NEAR = Server(0.0005, 80_000)  # knee at 40
FAR = Server(0.0005)  # any number of callers: the delay is the way there


class Simulation:
    """A walk's threads and a server, in simulated time."""

    def __init__(
        self,
        noise: float,
        target_us: int = 0,
        start: int = 0,
        idle_share: Callable[[int], float] = lambda _active: 0.0,
    ) -> None:
        self.pace = ffi.new("struct pace *")
        lowest = 1 if target_us else CORES
        lib.pace_init(self.pace, start or CORES, start > 0, lowest, THREADS_MAX, target_us * 1000)
        self.random = random.Random(7)
        self.noise = noise
        self.idle_share = idle_share
        self.done = self.waits = self.wait_ns = self.idle_ns = 0.0
        self.now_s = 0.0

    @property
    def active(self) -> int:
        return self.pace.active

    def run(self, server: Server, seconds: float) -> list[int]:
        """Let time pass; return the numbers of threads, one for each step."""
        totals = ffi.new("struct pace_totals *")
        numbers = []
        for _ in range(round(seconds / STEP_S)):
            calls = server.rate(self.active) * STEP_S
            calls *= 1 + self.random.uniform(-self.noise, self.noise)
            self.done += calls
            if not server.cached:
                self.waits += calls
                self.wait_ns += calls * server.latency(self.active) * 1e9
            self.idle_ns += self.idle_share(self.active) * self.active * STEP_S * 1e9
            self.now_s += STEP_S
            totals.now_ns, totals.done = round(self.now_s * 1e9), int(self.done)
            totals.waits, totals.wait_ns = int(self.waits), int(self.wait_ns)
            totals.idle_ns = int(self.idle_ns)
            lib.pace_step(self.pace, totals)
            numbers.append(self.active)
        return numbers


@pytest.fixture(params=[0.0, 0.05, 0.15], ids=["exact", "noise 5 %", "noise 15 %"])
def noise(request) -> float:
    return request.param


def mean(numbers: list[int]) -> float:
    return sum(numbers) / len(numbers)


def test_threads_grow_to_the_knee_of_a_server_within_a_second(noise):
    simulation = Simulation(noise)
    simulation.run(NEAR, 1)
    assert 0.7 * NEAR.knee <= mean(simulation.run(NEAR, 1)) <= 1.6 * NEAR.knee
    later = simulation.run(NEAR, 10)
    assert 0.7 * NEAR.knee <= mean(later) <= 1.6 * NEAR.knee
    # Trials leave the level, but not often.
    assert sum(number > 2 * NEAR.knee for number in later) < len(later) / 20


def test_threads_grow_to_their_bound_where_only_the_way_is_long(noise):
    simulation = Simulation(noise)
    simulation.run(FAR, 1)
    assert mean(simulation.run(FAR, 5)) > 0.9 * THREADS_MAX
    assert simulation.pace.high == THREADS_MAX
    assert simulation.pace.backoffs == 0


def test_on_a_warm_local_disk_the_threads_stay_at_the_number_of_cores(noise):
    simulation = Simulation(noise)
    numbers = simulation.run(Server(2e-6, CORES / 2e-6, cached=True), 10)
    assert mean(numbers) < 1.3 * CORES
    assert max(numbers) <= 4 * CORES
    assert min(numbers) == CORES


def test_a_walk_begins_with_what_an_earlier_one_ended_with():
    simulation = Simulation(0.0, start=40)
    numbers = simulation.run(NEAR, 3)
    assert min(numbers) >= 24
    assert max(numbers) <= 40 * 4 // 3


def test_threads_back_off_within_a_second_from_a_server_that_has_become_slower(noise):
    simulation = Simulation(noise)
    before = mean(simulation.run(NEAR, 3)[-50:])
    overloaded = Server(0.005, 2_000)  # ten callers get all there is
    numbers = simulation.run(overloaded, 3)
    assert numbers[99] <= before / 2
    assert mean(numbers[150:]) <= 1.6 * overloaded.knee
    assert simulation.pace.backoffs >= 1
    recovered = simulation.run(NEAR, 8)
    assert mean(recovered[-300:]) >= 0.7 * NEAR.knee


def test_a_longer_way_is_no_reason_to_ask_with_fewer_threads(noise):
    simulation = Simulation(noise)
    simulation.run(FAR, 3)
    numbers = simulation.run(Server(0.005), 5)
    assert mean(numbers) > 0.85 * THREADS_MAX


@pytest.mark.parametrize("slow_s", [0.005, 0.05, 0.2])
def test_above_the_latency_target_threads_fall_within_a_second_and_recover(noise, slow_s):
    simulation = Simulation(noise, target_us=2000)
    before = mean(simulation.run(NEAR, 3)[-50:])
    numbers = simulation.run(Server(slow_s), 3)
    assert numbers[29] <= before / 2 + 1
    assert numbers[99] <= before / 4
    assert numbers[-1] == 1
    assert simulation.run(Server(slow_s), 5) == [1] * 500
    recovered = simulation.run(NEAR, 6)
    assert mean(recovered[-100:]) >= 0.6 * NEAR.knee
    # A few at a time: it is not asked at full strength again as soon as it answers well.
    steps = [later - number for number, later in pairwise(recovered) if later < NEAR.knee / 2]
    assert max(steps) == 2


def test_the_latency_target_bounds_the_threads_also_where_more_would_do_more(noise):
    # Each further caller makes every answer take longer; throughput goes on growing slowly.
    def answer(callers: int) -> Server:
        return Server(0.0005 * (1 + callers / 20))

    simulation = Simulation(noise, target_us=1500)
    numbers = []
    for _ in range(1500):
        numbers += simulation.run(answer(simulation.active), STEP_S)
    settled = numbers[300:]
    # It comes to rest below the target and does not run into it again and again.
    assert simulation.pace.backoffs <= 3
    assert sum(answer(number).latency_s > 0.0015 for number in settled) < len(settled) / 5
    assert 16 <= mean(settled) <= 44


def test_threads_without_work_are_no_measure_of_the_server():
    simulation = Simulation(0.0, idle_share=lambda _active: 0.5)
    assert set(simulation.run(FAR, 3)) == {CORES}


@pytest.mark.parametrize("threads_max", [1, 2, 3])
def test_small_bounds_are_kept(threads_max):
    simulation = Simulation(0.0)
    lib.pace_init(simulation.pace, 8, False, 2, threads_max, 0)
    assert set(simulation.run(FAR, 5)) <= {1, 2, 3}
    assert max(simulation.run(FAR, 5)) <= threads_max
