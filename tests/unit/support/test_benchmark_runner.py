"""The benchmark runner measures what a process costs, and compares within rounds.

Covers: CPU and memory of a process, failures, the order of rounds, ratios.
Does not cover: the benchmarks (run them).
"""

import sys

import pytest

from benchmarks.machine import describe, describe_line
from benchmarks.runner import (
    BenchmarkFailed,
    Column,
    Contender,
    Report,
    as_json,
    measure,
    print_table,
    ratio,
    run_process,
)


def make_report(samples: dict[str, list[dict[str, float]]]) -> Report:
    contenders = [Contender(name, f"what {name} is", dict) for name in samples]
    columns = [Column("wall_s", "wall s", 1, ratio=True), Column("cpu_s", "CPU s")]
    return Report("b", "q", "s", {}, columns, contenders, samples, {"peer": "not here"}, ["note"])


def test_a_process_is_measured_with_its_children():
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'sum(range(10**7))'])"
    measured = run_process([sys.executable, "-c", script])
    assert measured.wall_s >= measured.cpu_s * 0.2 > 0.01


def test_peak_memory_is_that_of_the_process_and_not_of_its_parent():
    ballast = bytearray(b"x") * (200 << 20)
    script = "import time; b = bytearray(b'x') * (50 << 20); time.sleep(0.1); print(len(b))"
    measured = run_process([sys.executable, "-c", script], capture=True)
    assert len(ballast) > 150 << 20 > measured.peak_rss_bytes > 50 << 20
    assert measured.output == b"52428800\n"


def test_a_process_that_fails_gives_no_figure_but_what_it_said():
    script = "import sys; sys.exit('the reason')"
    with pytest.raises(BenchmarkFailed, match="ended with 1: the reason"):
        run_process([sys.executable, "-c", script])


def test_contenders_run_in_turn_and_the_first_round_does_not_count():
    order: list[str] = []

    def contender(name: str) -> Contender:
        def run() -> dict[str, float]:
            order.append(name)
            return {"n": len(order)}

        return Contender(name, "", run)

    samples = measure([contender("a"), contender("b")], 2, lambda: order.append("prepare"))
    assert [name for name in order if name != "prepare"] == ["a", "b"] * 3
    assert order.count("prepare") == 6
    assert samples == {"a": [{"n": 6}, {"n": 10}], "b": [{"n": 8}, {"n": 12}]}


def test_a_ratio_is_taken_within_each_round():
    report = make_report(
        {
            "a": [{"wall_s": 1.0}, {"wall_s": 10.0}, {"wall_s": 2.0}],
            "b": [{"wall_s": 2.0}, {"wall_s": 20.0}, {"wall_s": 2.0}],
        }
    )
    assert ratio(report, "b", "wall_s") == 2.0
    assert ratio(report, "b", "cpu_s") is None
    figures = as_json(report)["contenders"][1]["figures"]["wall_s"]
    assert figures == {
        "median": 2.0,
        "min": 2.0,
        "max": 20.0,
        "samples": [2.0, 20.0, 2.0],
        "ratio": 2.0,
    }


def test_the_table_names_what_is_missing(capsys, tmp_path):
    machine = describe(tmp_path)
    print_table(make_report({"a": [{"wall_s": 1.0}], "b": [{}]}), describe_line(machine))
    shown = capsys.readouterr().out
    assert "left out: peer: not here" in shown
    assert "cores" in shown
    assert "what b is" in shown
