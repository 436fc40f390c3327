"""What reads layouts, and what writes them for a new file.

Covers: lustre.lov blobs and CephFS texts, good and damaged ones; the plugin command that carries
them; a bounded, repeatable fuzz run of all three (more with FOREBAY_FUZZ_ITERATIONS).
Does not cover: any file that gets one (test_layouts.py).
"""

import os
import struct
import subprocess
from pathlib import Path

import pytest

from tests.plugin.layout_examples import (
    BAD,
    CEPH_DEFAULT,
    CEPH_STRIPED,
    DAMAGED,
    DOM,
    GOOD,
    INO,
    OK,
    PFL,
)
from tests.plugin.layout_support import (
    ANY,
    EOF,
    MDT,
    MIB,
    OVERSTRIPED,
    RAID0,
    V3,
    Component,
    command,
    composite,
    plain,
    saved,
)
from tests.plugin.restore_support import RUN_TIMEOUT_S, compile_c

SOURCES = ("layout.c", "layout_ceph.c", "layout_lustre.c", "stripes.c", "blob.c")
FUZZ_ITERATIONS = int(os.environ.get("FOREBAY_FUZZ_ITERATIONS", "40000"))
CEPH, LUSTRE = 1, 2
AS_SAVED = (0, 0)


@pytest.fixture(scope="module")
def parser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("harness") / "layouts"
    return compile_c(output, "harness_layouts.c", SOURCES, "address,undefined")


def call(parser: Path, *arguments: object, stdin: bytes) -> list[str]:
    done = subprocess.run(
        [str(parser), *map(str, arguments)],
        input=stdin.hex().encode(),
        capture_output=True,
        timeout=RUN_TIMEOUT_S,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode().splitlines()


def rebuilt(parser: Path, lov: bytes, changes: tuple[int, int] = AS_SAVED) -> tuple[int, bytes]:
    (line,) = call(parser, "lustre", *changes, stdin=lov)
    verdict, *_, out = line.split(" ")
    return int(verdict), bytes.fromhex(out)


# -- Lustre's xattr


@pytest.mark.parametrize("name", GOOD)
def test_a_layout_is_rebuilt_without_what_belongs_to_the_old_file(parser, name):
    lov, expected = GOOD[name]
    assert rebuilt(parser, lov) == (OK, expected)
    assert rebuilt(parser, expected) == (OK, expected)


@pytest.mark.parametrize("name", GOOD)
def test_a_truncated_layout_is_never_taken_for_a_whole_one(parser, name):
    lov, _ = GOOD[name]
    head = {0x0BD10BD0: 32, 0x0BD60BD0: -1}.get(struct.unpack_from("<I", lov)[0], 48)
    for length in range(len(lov)):
        verdict, out = rebuilt(parser, lov[:length])
        assert (verdict == OK) == (length == head)
        assert (out == b"") == (verdict != OK)


@pytest.mark.parametrize("name", BAD)
def test_a_layout_that_contradicts_itself_or_is_unknown_is_told_from_a_good_one(parser, name):
    lov, verdict = BAD[name]
    assert rebuilt(parser, lov) == (verdict, b"")


@pytest.mark.parametrize(
    ("lov", "changes", "expected"),
    [
        (saved(2, magic=V3, pool=b"fast"), (1, 0), plain(2)),
        (saved(2, magic=V3, pool=b"fast"), (0, 1), plain(ANY, magic=V3, pool=b"fast")),
        (saved(1, magic=V3, pool=b"fast"), (1, 1), plain(1)),
        (saved(9, pattern=RAID0 | OVERSTRIPED), (0, 1), plain(ANY)),
        (
            PFL,
            (1, 1),
            composite(Component(0, MIB, plain(1), 0, 1), Component(MIB, EOF, plain(ANY), 0, 2)),
        ),
        (
            DOM,
            (1, 1),
            composite(
                Component(0, MIB, plain(0, pattern=MDT), 0, 1),
                Component(MIB, EOF, plain(ANY, size=4 * MIB), 0, 2),
            ),
        ),
    ],
)
def test_a_layout_is_adapted_where_it_may_be(parser, lov, changes, expected):
    assert rebuilt(parser, lov, changes) == (OK, expected)


def test_the_longest_xattr_is_read_and_a_longer_one_is_not(parser):
    count = (65536 - 32) // (48 + 32)
    body = plain(4)
    parts = [Component(n * MIB, (n + 1) * MIB, body, 0, n + 1) for n in range(count)]
    lov = composite(*parts)
    assert rebuilt(parser, lov) == (OK, lov)
    assert rebuilt(parser, lov.ljust(65536, b"\0")) == (OK, lov)
    assert rebuilt(parser, lov.ljust(65537, b"\0")) == (DAMAGED, b"")
    most = saved(2000, magic=V3, pool=b"fast")
    assert rebuilt(parser, most) == (OK, plain(2000, magic=V3, pool=b"fast"))


# -- CephFS's text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CEPH_DEFAULT, [CEPH_DEFAULT, CEPH_DEFAULT.removesuffix(b" pool=cephfs_data")]),
        (CEPH_STRIPED, [CEPH_STRIPED, CEPH_STRIPED]),
        (
            b"pool=p-1._x object_size=131072 stripe_count=2 stripe_unit=65536 pool_namespace=n",
            [CEPH_STRIPED + b" pool=p-1._x pool_namespace=n", CEPH_STRIPED],
        ),
    ],
)
def test_a_layout_of_cephfs_is_read_and_written(parser, text, expected):
    assert call(parser, "ceph", stdin=text) == [line.decode() for line in expected]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"stripe_unit=65536",
        CEPH_STRIPED + b" ",
        b" " + CEPH_STRIPED,
        CEPH_STRIPED.replace(b" ", b"  "),
        CEPH_STRIPED + b"\0",
        CEPH_STRIPED + b"\n",
        CEPH_STRIPED + b" pool",
        CEPH_STRIPED + b" pool=",
        CEPH_STRIPED + b" pool=a=b",
        CEPH_STRIPED + b" pool=a pool=a",
        CEPH_STRIPED + b" pool=" + b"p" * 129,
        CEPH_STRIPED + b" pool_namespace=n",
        CEPH_STRIPED + b" something=1",
        CEPH_STRIPED + b" pool=" + b"p" * 600,
        b"stripe_unit=65536 stripe_count=0 object_size=131072",
        b"stripe_unit=0 stripe_count=1 object_size=131072",
        b"stripe_unit=65536 stripe_count=1 object_size=0",
        b"stripe_unit=65537 stripe_count=1 object_size=65537",
        b"stripe_unit=131072 stripe_count=1 object_size=196608",
        b"stripe_unit=4295032832 stripe_count=1 object_size=131072",
        b"stripe_unit=18446744073709617152 stripe_count=1 object_size=131072",
        b"stripe_unit=99999999999 stripe_count=1 object_size=131072",
        b"stripe_unit=+65536 stripe_count=1 object_size=131072",
        b"stripe_unit=-65536 stripe_count=1 object_size=131072",
    ],
)
def test_what_is_no_layout_of_cephfs_is_not_read_as_one(parser, text):
    assert call(parser, "ceph", stdin=text) == ["none"]


def test_numbers_of_quotas_and_pins_are_digits(parser):
    for text in (b"0", b"1", b"9" * 19):
        assert call(parser, "number", stdin=text) == ["1"]
    for text in (b"", b"-1", b"1 ", b"0x1", b"1\0", b"9" * 20):
        assert call(parser, "number", stdin=text) == ["0"]


# -- The plugin command


def test_the_command_is_what_the_document_says(parser):
    assert call(parser, "command", "ceph", 77, stdin=b"abc") == [
        "forebay:layout=1:c:000000000000004d:f3a0b4af:616263"
    ]
    for name, kind, letter, data in (
        ("ceph", CEPH, "c", CEPH_DEFAULT),
        ("lustre", LUSTRE, "l", GOOD["DoM"][1]),
    ):
        for ino in (0, 77, 2**64 - 1):
            expected = command(letter, ino, data)
            assert call(parser, "command", name, ino, stdin=data) == [expected.decode()]
            assert call(parser, "ahead", stdin=expected) == [f"{kind} 0 {ino} {data.hex()}"]


def test_commands_without_a_layout_carry_none(parser):
    for text in (b"", b"forebay:", b"forebay:dataset=d:shard=1/2", b"forebay:layout=2:c:1"):
        (line,) = call(parser, "ahead", stdin=text)
        assert line.split(" ")[:2] == ["0", "0"]


def test_a_command_that_broke_is_no_layout(parser):
    good = command("l", INO, plain(2))
    head = len(b"forebay:layout=1:")
    broken = [good[:length] for length in range(head, len(good))]
    for at in range(head, len(good)):
        broken.append(good[:at] + (b"0" if good[at : at + 1] != b"0" else b"1") + good[at + 1 :])
    broken += [
        good + b"0",
        good + b"00",
        good.upper().replace(b"FOREBAY:LAYOUT", b"forebay:layout"),
    ]
    broken += [command("x", INO, plain(2)), command("c", INO, plain(2)), command("l", INO, b"x")]
    broken += [command("l", INO, b""), command("c", INO, b"pool=a"), good + b"00" * 70_000]
    for text in broken:
        (line,) = call(parser, "ahead", stdin=text)
        assert line.split(" ")[:2] == ["0", "1"], text


def test_no_bytes_make_the_parsers_touch_foreign_memory(tmp_path):
    fuzzer = compile_c(tmp_path / "fuzz", "fuzz_layouts.c", SOURCES, "address,undefined")
    seeds = [b"\0" + lov for lov, _ in GOOD.values()]
    seeds += [b"\1" + CEPH_DEFAULT, b"\1" + CEPH_STRIPED + b" pool=a pool_namespace=b", b"\x0112"]
    seeds += [b"\2" + plain(2), b"\2" + command("l", 1, plain(2)), b"\2" + CEPH_STRIPED]
    paths = [tmp_path / f"seed{number}" for number in range(len(seeds))]
    for path, seed in zip(paths, seeds, strict=True):
        path.write_bytes(seed)
    timeout_s = RUN_TIMEOUT_S + FUZZ_ITERATIONS / 1000
    arguments = [str(fuzzer), str(FUZZ_ITERATIONS), "20260101", *map(str, paths)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=timeout_s)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{FUZZ_ITERATIONS} inputs from {len(seeds)} seeds\n"
