"""The bridge serves whole streams, checks what comes back, and never calls a broken one good."""

import os
import select
import socket
import stat
import struct
import threading
import time
from dataclasses import replace

import pytest

from bacula_bridge import server
from bacula_bridge.coordinator import Coordinator
from bacula_bridge.protocol import (
    Accept,
    FrameType,
    Hello,
    decode_accept,
    decode_reason,
    encode_accept,
    encode_hello,
    encode_reason,
    frame,
)
from bacula_bridge.server import BridgeServer, SocketUnusable
from bacula_bridge.stream import StreamState
from shards.changes import ChangeSet, Position
from shards.lease import PendingDirectory
from shards.ledger import LedgerBusy
from shards.ledger_schema import HsmPolicy, JobState, RunState
from shards.receipts import ReceiptsDamaged, read_receipts
from shards.schema import ReceiptStatus
from shards.state import StateDirectory
from tests.support.bridge_site import (
    GOOD,
    PAST,
    READ_NS,
    ROLE,
    FakeCatalog,
    Site,
    first_tree,
    old,
    second_tree,
)
from tests.support.plugin_client import FLAG_DELETED, PluginClient
from tests.support.rows import directory, grouped, row

EVERYWHERE = "the whole tree is looked at: no change reader is set up (`forebay watch`)"


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    yield site
    site.close()


def some_rows(count=50):
    rows = [directory(b"", 1)]
    for ino in range(10, 10 + count):
        rows.append(row(b"name\n\xff%d" % ino, ino, size=ino, nlink=2 if ino % 9 == 0 else 1))
    rows.append(row(b"bad", 9, error=13, flags=0x1))
    return rows


def stream_all(site, status=ReceiptStatus.SAVED, jobid=1):
    """Stream shard 0 to its end; return the entries."""
    with site.client() as client:
        client.hello(jobid=jobid)
        entries = list(client.entries())
        if entries:
            client.acknowledge(len(entries), status)
        client.done()
        assert client.read()[0] is FrameType.DONE_ACK
    return entries


def test_a_stream_brings_every_row_and_receipts_are_durable(site):
    site.open_run()
    rows = some_rows()
    site.commit(rows)
    entries = stream_all(site)
    assert sorted(path for _, path in entries) == sorted(values["path"] for values in rows)
    bad = next(record for record, path in entries if path == b"bad")
    assert (bad["error"], bad["flags"]) == (13, 0x4)
    site.coordinator.job_ended(site.run, 0, 1, "job", GOOD)
    job = site.job()
    assert job.state is JobState.GOOD
    receipts = [
        values
        for batch in read_receipts(site.state.receipts(site.run), job.receipts)
        for values in batch.to_pylist()
    ]
    assert [values["path"] for values in receipts] == [path for _, path in entries]
    assert site.coordinator.end_run(site.run).state is RunState.COMPLETE


@pytest.mark.parametrize(
    ("status", "state", "stubs", "files"),
    [
        (ReceiptStatus.STUB, RunState.COMPLETE, 50, 50),
        (ReceiptStatus.RELEASED, RunState.WARNINGS, 0, 0),
    ],
)
def test_files_without_their_data_are_counted_and_make_warnings_if_nothing_was_saved(
    site, status, state, stubs, files
):
    site.open_run()
    site.commit(some_rows()[1:-1])
    stream_all(site, status)
    site.coordinator.job_ended(site.run, 0, 1, "job", GOOD)
    summary = site.job().summary
    assert (summary.stubs, summary.files) == (stubs, files)
    assert site.coordinator.end_run(site.run).state is state


def test_a_dataset_keeps_what_becomes_of_released_files(site):
    for given, kept in (
        (None, HsmPolicy.SKIP),
        (HsmPolicy.STUB, HsmPolicy.STUB),
        (None, HsmPolicy.STUB),
        (HsmPolicy.SKIP, HsmPolicy.SKIP),
    ):
        site.coordinator.define_dataset("d", "posix", b"/data", 1, hsm=given)
        assert site.coordinator._ledger.hsm("d") is kept


def test_accept_names_root_and_run(site):
    run = site.open_run()
    with site.client() as client:
        accept = client.hello()
        assert (accept.root, accept.run, accept.run_id) == (b"/data", run, f"d.{run}")


def test_streaming_begins_before_the_scan_ends(site):
    site.open_run()
    site.commit(some_rows(10), frontier=[PendingDirectory(b"later")])
    with site.client() as client:
        client.hello()
        entries = client.entries()
        first = next(entries)
        assert first[0]["number"] == 0
        site.commit([row(b"later/x", 999)])
        rest = list(entries)
        assert b"later/x" in [path for _, path in rest]
        client.acknowledge(1 + len(rest))
        client.done()
        assert client.read()[0] is FrameType.DONE_ACK


@pytest.mark.parametrize("window", [3, 11, 103])  # not whole multiples of a frame
def test_the_window_is_filled_and_never_passed(site, monkeypatch, window):
    """The plugin has a ring of exactly so many entries and refuses one more."""
    site.open_run()
    site.commit([row(b"%d" % ino, ino) for ino in range(1, 200)])
    join = site.coordinator.join

    def small_window(hello):
        joined = join(hello)
        return replace(joined, accept=replace(joined.accept, window=window))

    monkeypatch.setattr(site.coordinator, "join", small_window)
    with site.client() as client:
        client.hello()
        entries = client.entries()
        unacknowledged = most = total = 0
        for _ in entries:
            unacknowledged += 1
            total += 1
            most = max(most, unacknowledged)
            assert unacknowledged <= window
            if client.received == total and not more_to_read(client):
                client.acknowledge(unacknowledged)
                unacknowledged = 0
        assert total == 199
        assert most > window // 2
        if unacknowledged:
            client.acknowledge(unacknowledged)
        client.done()
        assert client.read()[0] is FrameType.DONE_ACK


def more_to_read(client, wait_s=0.02):
    readable, _, _ = select.select([client.socket], [], [], wait_s)
    return bool(readable)


def refusal(site, **hello):
    with site.client() as client:
        return client.hello(**hello)


def test_refusals_say_what_to_do(site):
    assert "no open run" in refusal(site)
    site.open_run()
    assert "no dataset nope (known: d)" in refusal(site, dataset="nope")
    assert "1 shards" in refusal(site, shards=4)
    assert "1 shards" in refusal(site, shard=1)
    assert "level=Full" in refusal(site, level="I")
    with site.client() as first:
        first.hello(jobid=7)
        assert "JobId 7" in refusal(site, jobid=8)


@pytest.mark.parametrize(
    ("name", "act", "reason"),
    [
        ("end of file", lambda c: c.close(), "closed the stream"),
        ("bad magic", lambda c: c.send(b"x" * 64), "magic"),
        ("too long", lambda c: c.send(struct.pack("<IHHII", 0x31534246, 7, 0, 1 << 30, 0)), "long"),
        (
            "bad checksum",
            lambda c: c.send(struct.pack("<IHHII", 0x31534246, 7, 0, 4, 99) + b"abcd"),
            "CRC-32",
        ),
        ("truncated frame", lambda c: (c.send(frame(FrameType.DONE, b"x" * 32)[:20]), c.close()),
         "closed the stream"),
        ("early done", lambda c: c.done(), "DONE"),
        ("too many receipts", lambda c: c.acknowledge(4000), "receipts"),
        ("wrong number", lambda c: c.acknowledge(1, number=5), "due"),
        ("wrong status", lambda c: c.acknowledge(1, status=max(ReceiptStatus) + 1), "status"),
        ("abort", lambda c: c.send(frame(FrameType.ABORT, b"\x02\x00no")), "gave up: no"),
        ("wrong frame", lambda c: c.send(frame(FrameType.END, b"")), "not for the plugin"),
        ("wrong totals", lambda c: (c.acknowledge(52), c.done(receipts=51)), "DONE counts 51"),
        ("wrong sum", lambda c: (c.acknowledge(52), c.done(checksum=1)), "CRC-32"),
    ],
)  # fmt: skip
def test_a_misbehaving_plugin_breaks_its_stream_and_nothing_else(site, name, act, reason):
    site.open_run()
    site.commit(some_rows())
    with site.client() as client:
        client.hello()
        assert len(list(client.entries())) == 52
        act(client)
        job = site.wait_broken()
    assert job.state is JobState.BAD, name
    assert reason in job.reason
    assert list(site.state.receipts(site.run).iterdir()) == []
    assert "run the job again" in refusal(site)
    assert len(stream_all(site, jobid=2)) == 52, "the shard cannot be streamed again"


def test_the_plugin_is_told_why_its_stream_broke(site):
    site.open_run()
    site.commit(some_rows())
    with site.client() as client:
        client.hello()
        list(client.entries())
        client.acknowledge(1, number=5)
        kind, payload = client.read()
        assert kind is FrameType.ABORT
        assert "due" in decode_reason(payload)


def test_a_failed_scan_breaks_the_stream_with_its_reason(site):
    site.open_run()
    with site.client() as client:
        client.hello()
        site.coordinator.fail_run(site.run, "the scan of /data failed: no space")
        kind, payload = client.read()
        assert kind is FrameType.ABORT
        assert decode_reason(payload) == "the scan of /data failed: no space"


def test_a_damaged_segment_breaks_the_stream(site):
    site.open_run()
    site.commit(some_rows())
    path = next(site.state.segments(site.run).iterdir())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with site.client() as client:
        client.hello()
        kind, payload = client.read()
        assert kind is FrameType.ABORT
        assert "damaged" in decode_reason(payload)


def test_a_silent_plugin_is_given_up(site, monkeypatch):
    monkeypatch.setattr(server, "SILENCE_MAX_S", 0.3)
    site.open_run()
    site.commit(some_rows())
    with site.client() as client:
        client.hello()
        list(client.entries())
        job = site.wait_broken()
    assert "silent" in job.reason


def test_the_bridge_keeps_a_waiting_stream_alive(site, monkeypatch):
    monkeypatch.setattr(server, "KEEPALIVE_S", 0.05)
    monkeypatch.setattr(server, "SEGMENT_WAIT_S", 0.05)
    site.open_run()
    with site.client() as client:
        client.hello()
        header = client._exactly(16)
        assert struct.unpack("<IHHII", header)[1] == FrameType.KEEPALIVE


def test_stopping_the_bridge_ends_its_streams(site):
    site.open_run()
    site.commit(some_rows())
    with site.client() as client:
        client.hello()
        list(client.entries())
        stopper = threading.Thread(target=site.bridge.stop)
        stopper.start()
        while client.read()[0] is not None:
            pass
        stopper.join(20)
        assert not stopper.is_alive()
    assert site.job().state is JobState.BAD
    assert not site.socket.exists()


def test_the_socket_is_for_its_owner_alone(site):
    assert stat.S_IMODE(os.stat(site.socket).st_mode) == 0o600


def test_the_socket_s_folder_is_made_again_for_its_owner_alone(tmp_path):
    state = StateDirectory(tmp_path / "state")
    BridgeServer(tmp_path / "run" / "b.sock", None, state, FakeCatalog()).stop()
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700


def test_a_stranger_is_turned_away(tmp_path):
    state = StateDirectory(tmp_path / "state")
    coordinator = Coordinator(state, FakeCatalog())
    bridge = BridgeServer(
        tmp_path / "s", coordinator, state, FakeCatalog(), frozenset({4_000_000_000})
    )
    try:
        with PluginClient(tmp_path / "s") as client:
            assert client.read()[0] is None
    finally:
        bridge.stop()
        coordinator.close()


def test_a_socket_path_that_is_too_long_is_refused(tmp_path):
    state = StateDirectory(tmp_path / "state")
    with pytest.raises(SocketUnusable, match="107"):
        BridgeServer(tmp_path / ("x" * 120), None, state, FakeCatalog())


def test_several_shards_stream_at_once(tmp_path):
    site = Site(tmp_path, shards=3)
    try:
        site.open_run()
        rows = some_rows(300)
        site.commit(rows)
        found = []
        clients = [site.client() for _ in range(3)]
        for shard, client in enumerate(clients):
            client.hello(shard=shard, shards=3, jobid=10 + shard)
        for client in clients:
            entries = list(client.entries())
            found += [path for _, path in entries]
            client.acknowledge(len(entries))
            client.done()
            assert client.read()[0] is FrameType.DONE_ACK
            client.close()
        assert sorted(found) == sorted(values["path"] for values in rows)
    finally:
        site.close()


def test_a_coordinator_that_starts_again_fails_the_run_it_left(tmp_path):
    site = Site(tmp_path)
    site.open_run()
    with pytest.raises(LedgerBusy):
        Coordinator(site.state, site.catalog)
    site.close()
    again = Coordinator(site.state, site.catalog)
    assert again.status(site.run).run.state is RunState.FAILED
    again.close()


def test_a_run_killed_before_it_looked_for_the_other_names_of_an_inode_still_does(tmp_path):
    """The lease that found the inode was committed, what follows from it was not yet."""

    class OneName:
        name = "one-name"

        def position(self):
            return Position("one-name", "session", 1)

        def changes(self, since, snapshot=None):
            return ChangeSet(names=[b"new-link"])

        def forget(self, before):
            pass

    site = Site(tmp_path, changes=lambda dataset: OneName())
    try:
        site.backup(first_tree(), 7)
        site.open_run("incremental")
        assert site.coordinator.status(site.run).run.since is not None
        complete, site.coordinator._scoping.complete = site.coordinator._scoping.complete, print
        site.commit([old(b"new-link", 14, nlink=3)])
        assert site.coordinator.status(site.run).run.scan_ended is not None
        site.coordinator._scoping.complete = complete
        site.coordinator.end_run(site.run)
        assert site.coordinator.reopen_run(site.run).state is RunState.OPEN
        lease = site.coordinator.take_lease(0, ROLE, site.epoch, 5)
        assert set(lease.names) == {b"stays-a", b"stays-b"}
    finally:
        site.close()


def test_segments_that_nobody_committed_are_removed_at_the_end(site):
    site.open_run()
    site.commit(some_rows())
    leftover = site.state.segments(site.run) / "99-1-0.arrow"
    leftover.write_bytes(b"x")
    site.coordinator.end_run(site.run)
    assert not leftover.exists()
    assert len(list(site.state.segments(site.run).iterdir())) == 1


def test_half_a_hello_does_not_hold_the_bridge(site):
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(str(site.socket))
    peer.send(b"FBS1")
    peer.close()
    site.open_run()
    site.commit(some_rows())
    assert len(stream_all(site)) == 52


def test_damaged_receipts_are_named(site):
    site.open_run()
    site.commit(some_rows())
    stream_all(site)
    info = site.job().receipts
    path = site.state.receipts(site.run) / info.name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ReceiptsDamaged, match=info.name):
        list(read_receipts(site.state.receipts(site.run), info))


@pytest.mark.parametrize("window", [3, 11, 103, 65_536])
def test_there_is_room_only_for_a_whole_frame(window):
    state = StreamState(window)
    batch, _ = grouped([row(b"%d" % ino, ino) for ino in range(1, min(window, 900) + 99)], 1, 0)
    frames = state.entry_frames(batch)
    while state.has_room and next(frames, None) is not None:
        assert state.unacknowledged <= window
    assert state.unacknowledged > window // 2 or window == 65_536


# Versions


def test_a_plugin_of_version_1_is_refused_and_both_versions_are_named(site):
    """The first two bytes of HELLO are the version in every version."""
    site.open_run()
    payload = encode_hello(Hello("F", 0, 1, 1, 0, "d", "job.1", "", "c-fd"))[16:]
    with site.client() as client:
        client.send(frame(FrameType.HELLO, b"\1\0" + payload[2:]))
        kind, payload = client.read()
        assert kind is FrameType.REFUSE
        assert decode_reason(payload) == (
            "stream protocol: the plugin speaks version 1, this bridge 2; install the plugin that"
            " came with this Forebay"
        )
        assert client.read()[0] is None


def test_words_for_the_job_log_are_cut_between_characters():
    accept = Accept(1, 1, "d.1", b"/data", note="\u00e4" * 1000 + "\0")
    assert decode_accept(encode_accept(accept)[16:]).note == "\u00e4" * 750
    reason = decode_reason(encode_reason(FrameType.REFUSE, "no file \udcff")[16:])
    assert reason == "no file \\udcff"


# Incrementals


# As second_tree() must be sent after first_tree(): path and mark of deletion, class by class.
SECOND_STREAM = [
    {(b"d/changed", False), (b"d/new", False), (b"link-a", False)},
    {(b"stays-a", False), (b"stays-b", False)},
    {(b"d/gone", True), (b"e", True), (b"link-b", True)},
    {(b"d", False)},
    {(b"", False)},
]
SECOND_LENGTHS = [len(part) for part in SECOND_STREAM]


def parts_of(entries, lengths):
    """Cut entries into sets of (path, was it deleted) of these lengths."""
    found = [(path, bool(record["flags"] & FLAG_DELETED)) for record, path in entries]
    assert len(found) == sum(lengths), found
    return [set(found[sum(lengths[:k]) : sum(lengths[: k + 1])]) for k in range(len(lengths))]


def test_an_incremental_gets_what_changed_and_says_on_which_jobs(site):
    accept, entries = site.backup(first_tree(), 7)
    assert (len(entries), accept.note) == (10, "")
    accept, entries = site.backup(second_tree(), 8, "I", PAST + 1, previous_job="job.7")
    assert accept.note == f"incremental on JobId 7; {EVERYWHERE}"
    assert parts_of(entries, SECOND_LENGTHS) == SECOND_STREAM
    modes = {path: int(record["mode"]) for record, path in entries}
    assert stat.S_ISDIR(modes[b"e"])
    assert stat.S_ISREG(modes[b"d/gone"])
    receipts = {
        values["path"]: values
        for batch in read_receipts(site.state.receipts(site.run), site.job().receipts)
        for values in batch.to_pylist()
    }
    assert receipts[b"d/changed"]["read_ns"] == READ_NS
    assert receipts[b"e"]["status"] == ReceiptStatus.DELETED
    assert site.job().chain == (7,)


def test_a_further_incremental_builds_on_all_and_a_differential_on_the_full(site):
    site.backup(first_tree(), 7)
    site.backup(second_tree(), 8, "I", PAST + 1, previous_job="job.7")
    accept, entries = site.backup(second_tree(), 9, "I", PAST + 2, previous_job="job.8")
    assert accept.note == f"incremental on JobId 7, 8; {EVERYWHERE}"
    assert entries == []
    accept, entries = site.backup(second_tree(), 10, "D", PAST + 3, previous_job="job.7")
    assert accept.note == f"differential on JobId 7; {EVERYWHERE}"
    assert parts_of(entries, SECOND_LENGTHS) == SECOND_STREAM


def test_a_base_that_the_catalog_does_not_have_as_its_newest_good_job_is_refused(site):
    site.backup(first_tree(), 7)
    site.backup(second_tree(), 8, "I", PAST + 1, previous_job="job.7")
    site.open_run("incremental")
    assert refusal(site, jobid=9, level="I", previous_job="job.7") == (
        "the Director builds on job job.7, but the catalog's newest good one is job.8 (JobId 8):"
        " was the clock set back?; run the job with level=Full"
    )
    assert "builds on job (none)" in refusal(site, jobid=9, level="I")
    site.catalog.rows[1] = replace(site.catalog.rows[1], status="f")
    site.catalog.rows[0] = replace(site.catalog.rows[0], purged=True)
    assert refusal(site, jobid=9, level="I", previous_job="job.7") == (
        "the files of JobId 7 were purged from the catalog; run the job with level=Full"
    )
    site.catalog.rows.clear()
    assert refusal(site, jobid=9, level="I", previous_job="job.7") == (
        "the catalog has no good Full of this job to build on; run the job with level=Full"
    )
    assert site.coordinator.status(site.run).jobs == (), "a refused job has its shard"


def test_the_run_is_a_full_when_the_catalog_cannot_give_a_base(site):
    site.backup(first_tree(), 7)
    site.catalog.rows[0] = replace(site.catalog.rows[0], purged=True)
    run = site.coordinator.open_run("d", "incremental")
    assert (run.level, run.note) == (
        "full",
        "it is a full backup instead of an incremental: the files of JobId 7 were purged from the"
        " catalog",
    )


def test_a_base_that_the_ledger_does_not_know_is_known_by_its_names_alone(site):
    """The run began on a base that was known: then the Director ran another Full by itself."""
    site.backup(first_tree(), 7)
    site.open_run("incremental")
    site.catalog.add(8, tdate=PAST + 1)
    saved = [b"", b"d/", b"d/same", b"d/gone", b"e/", b"e/below"]
    site.catalog.names[8] = {b"/data/" + path: at for at, path in enumerate(saved, 1)}
    site.catalog.names[8][b"/data/deleted-then"] = -7
    site.catalog.names[8][b"/elsewhere/file"] = 8
    site.commit(second_tree())
    with site.client() as client:
        accept = client.hello(jobid=9, level="I", previous_job="job.8")
        assert accept.note == (
            f"incremental on JobId 8; {EVERYWHERE}; JobId 8 is not in the run ledger: its names"
            " come from the catalog, and all that it saved is sent again"
        )
        entries = list(client.entries())
    assert parts_of(entries, [4, 2, 3, 1, 1]) == [
        {(path, False) for path in (b"d/same", b"d/changed", b"d/new", b"link-a")},
        {(b"stays-a", False), (b"stays-b", False)},
        {(b"d/gone", True), (b"e", True), (b"e/below", True)},
        {(b"d", False)},
        {(b"", False)},
    ]
    # The catalog's names have no type, and the plugin refuses an entry without one.
    for record, path in entries:
        expected = stat.S_IFDIR if path in (b"", b"d", b"e") else stat.S_IFREG
        assert stat.S_IFMT(int(record["mode"])) == expected, path


def test_a_base_of_another_number_of_shards_is_refused_by_that_name(site):
    site.backup(first_tree(), 7)
    site.coordinator.define_dataset("d", "posix", b"/data", 2)
    run = site.coordinator.open_run("d", "incremental")
    assert run.level == "full"
    assert "the number of shards was 1 when JobId 7 ran and is 2 now" in run.note
    answer = refusal(site, jobid=9, level="I", shards=2, previous_job="job.7")
    assert answer == (
        "the number of shards was 1 when JobId 7 ran and is 2 now; run the job with level=Full"
    )


@pytest.mark.parametrize("level", ["I", "D", "F"])
def test_a_clock_behind_the_base_is_refused(site, level):
    """A restore would take the older job for the newer one."""
    site.backup(first_tree(), 7, tdate=int(time.time()) + 3600)
    site.open_run("incremental")
    answer = refusal(site, jobid=9, level=level, previous_job="job.7")
    assert "but JobId 7 ended at" in answer
    assert "set the clock right" in answer


def test_a_full_of_a_full_run_does_not_mind_the_clock(site):
    site.backup(first_tree(), 7, tdate=int(time.time()) + 3600)
    _, entries = site.backup(second_tree(), 8)
    assert len(entries) == len(second_tree())


def test_damaged_receipts_of_a_base_are_said_and_everything_goes_again(site):
    site.backup(first_tree(), 7)
    receipts = site.state.receipts(site.run)
    path = receipts / site.job().receipts.name
    path.write_bytes(path.read_bytes()[:-1])
    for layer in receipts.glob("*.layer*"):  # it was made when the stream ended
        layer.unlink()
    site.catalog.names[7] = {b"/data/gone-by-catalog": 1}
    accept, entries = site.backup(second_tree(), 8, "I", PAST + 1, previous_job="job.7")
    assert "all that it saved is sent again" in accept.note
    assert (b"gone-by-catalog", True) in set().union(*parts_of(entries, [len(entries)]))
    assert len(entries) == len(second_tree()) + 1


def test_directories_of_targets_without_a_walker_go_to_the_first_one(tmp_path):
    """Their number was told at the start; a directory may be moved to a new one meanwhile."""
    site = Site(tmp_path)
    site.coordinator._targets = 2
    try:
        site.open_run()
        found = [PendingDirectory(b"known", target=1), PendingDirectory(b"new", target=2)]
        site.commit([directory(b"", 1)], frontier=found)
        taken = {
            target: site.coordinator.take_lease(target, ROLE, site.epoch, 0) for target in (0, 1)
        }
        assert [d.path for d in taken[0].directories] == [b"new"]
        assert [d.path for d in taken[1].directories] == [b"known"]
        site.coordinator.end_run(site.run)
        site.coordinator._targets = 1  # as the next start found it
        site.coordinator.reopen_run(site.run)
        lease = site.coordinator.take_lease(0, ROLE, site.epoch, 0)
        assert b"known" in {d.path for d in lease.directories} | {
            d.path for d in site.coordinator.take_lease(0, ROLE, site.epoch, 0).directories
        }
    finally:
        site.close()
