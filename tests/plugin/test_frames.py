"""The plugin's frame parser and its XXH3-128, each on its own.

Covers: a bounded, repeatable fuzz run of the parser under AddressSanitizer (more with
FOREBAY_FUZZ_ITERATIONS); XXH3-128 against the reference implementation; that an END, numbers and
paths are checked is in test_plugin_backup.py.
Does not cover: sockets.
"""

import ctypes
import os
import random
import stat
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
import xxhash

from tests.plugin.restore_support import CFLAGS, PLUGIN, RUN_TIMEOUT_S, compile_c
from tests.support.stream_bridge import (
    ABORT,
    ACCEPT,
    DONE_ACK,
    END,
    ENTRIES,
    FLAG_DELETED,
    FLAG_PATH_TOO_LONG,
    KEEPALIVE,
    REFUSE,
    Entry,
    Limits,
    accept_payload,
    entries_payload,
    frame,
    text,
)

FUZZ_ITERATIONS = int(os.environ.get("FOREBAY_FUZZ_ITERATIONS", "40000"))
LENGTHS = [*range(1100), 2047, 2048, 2049, 4096, 65_535, 65_536, 65_537, 262_144, 300_001]
SPLITS_PER_LENGTH = 3


def valid_stream() -> bytes:
    file = stat.S_IFREG | 0o644
    entries = [Entry(b"a/b%d" % i, i + 1, i, file, 1 + i % 2) for i in range(20)]
    entries += [
        Entry(b"x/..", 99, 0, 0, 0, 36, FLAG_PATH_TOO_LONG),
        Entry(b"gone", 5, 0, file, 1, 0, FLAG_DELETED),
        Entry(b"d/e", 7, 0, stat.S_IFDIR | 0o755, 2),
        Entry(b"", 8, 0, stat.S_IFDIR | 0o755, 2),
    ]
    payloads = [entries_payload(0, entries[:10]), entries_payload(10, entries[10:])]
    checksum = zlib.crc32(payloads[1], zlib.crc32(payloads[0]))
    end = struct.pack("<QII", len(entries), checksum, 0)
    frames = [(ACCEPT, accept_payload(b"/data", Limits())), (KEEPALIVE, b"")]
    frames += [(ENTRIES, payload) for payload in payloads]
    return b"".join(frame(*one) for one in [*frames, (END, end), (DONE_ACK, b"")])


def test_no_bytes_from_a_bridge_make_the_parser_touch_foreign_memory(tmp_path: Path):
    fuzzer = compile_c(
        tmp_path / "fuzz", "fuzz_frames.c", ["frames.c", "blob.c"], "address,undefined"
    )
    reasons = frame(REFUSE, text(b"no \n\\ \xff")) + frame(ABORT, text(b""))
    seeds = [b"\0" + valid_stream(), b"\7" + valid_stream(), b"\1" + reasons]
    paths = [tmp_path / f"seed{number}" for number in range(len(seeds))]
    for path, seed in zip(paths, seeds, strict=True):
        path.write_bytes(seed)
    timeout_s = RUN_TIMEOUT_S + FUZZ_ITERATIONS / 1000
    command = [str(fuzzer), str(FUZZ_ITERATIONS), "20260101", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{FUZZ_ITERATIONS} inputs from 3 seeds\n"


class State(ctypes.Structure):
    """Larger than struct fb_xxh3, which only the library looks into."""

    _fields_ = [("bytes", ctypes.c_uint64 * 64)]


@pytest.fixture(scope="module", params=[[], ["-DFB_XXH3_SCALAR"]], ids=["usual", "scalar"])
def xxh3(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = tmp_path_factory.mktemp("xxh3") / "xxh3.so"
    source = str(PLUGIN / "xxh3.c")
    options = [*CFLAGS, *request.param, "-shared", source, "-o", str(library)]
    subprocess.run(["cc", *options], check=True)
    return ctypes.CDLL(str(library))


def digest(xxh3: ctypes.CDLL, data: bytes, cuts: list[int]) -> bytes:
    state, out = State(), ctypes.create_string_buffer(16)
    xxh3.fb_xxh3_init(ctypes.byref(state))
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        part = data[start:end]
        xxh3.fb_xxh3_update(ctypes.byref(state), part, ctypes.c_size_t(len(part)))
    xxh3.fb_xxh3_final(ctypes.byref(state), out)
    return out.raw


def test_xxh3_agrees_with_the_reference_for_every_length_and_split(xxh3: ctypes.CDLL):
    chance = random.Random(3)
    data = chance.randbytes(max(LENGTHS))
    for length in LENGTHS:
        expected = xxhash.xxh3_128(data[:length]).digest()
        assert digest(xxh3, data[:length], []) == expected, length
        for _ in range(SPLITS_PER_LENGTH):
            cuts = sorted(chance.randrange(length + 1) for _ in range(chance.randrange(1, 6)))
            assert digest(xxh3, data[:length], cuts) == expected, (length, cuts)


def test_xxh3_of_nothing_and_of_one_byte_have_their_golden_values(xxh3: ctypes.CDLL):
    assert digest(xxh3, b"", []).hex() == "99aa06d3014798d86001c324468d497f"
    assert digest(xxh3, b"a", []).hex() == "a96faf705af16834e6c632b61e964e1f"
