"""What a bridge measures of its streams."""

import pytest

from bacula_bridge.protocol import FrameType
from tests.support.bridge_site import Site
from tests.support.rows import directory, row
from tests.unit.shards.test_measures import values

ROWS = [directory(b"", 1), *(row(b"name%d" % ino, ino, size=ino) for ino in range(10, 30))]


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    site.open_run()
    yield site
    site.close()


def sample(site):
    samples = site.bridge.samples()
    durations = [s for s in samples if s.name.endswith("_seconds") and not s.labels]
    found = values([s for s in samples if s not in durations])
    return found, {s.name for s in durations}


def test_a_stream_counts_once_whether_live_or_over(site):
    site.commit(ROWS)
    with site.client() as client:
        client.hello(jobid=1)
        entries = list(client.entries())
        found, durations = sample(site)
        assert found["stream_live", "d", "0"] == 1
        assert found["stream_sent_total", "d", "0"] == len(entries) == len(ROWS)
        assert found["stream_waiting_entries", "d", "0"] == len(entries)
        assert found["stream_known_entries", "d", "0"] == len(entries)
        assert found["stream_idle_seconds", "d", "0"] > 0
        assert durations >= {"forebay_join_seconds", "forebay_segment_read_seconds"}
        client.acknowledge(len(entries))
        client.done()
        assert client.read()[0] is FrameType.DONE_ACK
    site.join_streams()
    found, durations = sample(site)
    assert found["stream_live", "d", "0"] == 0
    assert found["stream_sent_total", "d", "0"] == len(entries)
    assert found["stream_acknowledged_total", "d", "0"] == len(entries)
    assert found["stream_completed_total", "d", "0"] == 1
    assert found["stream_broken_total", "d", "0"] == 0
    assert found["stream_idle_seconds", "d", "0"] == 0
    assert durations == {"forebay_receipts_commit_seconds"}


def test_a_stream_that_breaks_is_counted_as_broken(site):
    site.commit(ROWS)
    with site.client() as client:
        client.hello(jobid=1)
        client.read()
    site.wait_broken()
    found, _ = sample(site)
    assert found["stream_broken_total", "d", "0"] == 1
    assert found["stream_completed_total", "d", "0"] == 0


def test_a_refused_job_is_counted_without_what_it_called_itself(site):
    with site.client() as client:
        client.hello(jobid=1, dataset="any name at all")
    site.join_streams()
    found, _ = sample(site)
    assert found["joins_refused_total",] == 1
    assert not [key for key in found if "any name at all" in key]
    assert site.bridge.connections == 0
