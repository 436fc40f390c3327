"""Finding and fetching Bacula's programs, with apt and without a network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bacula_bridge import debian, programs
from bacula_bridge.errors import BadValue, DownloadFailed, LockTimeout, NoKeyring, ProgramsMissing
from bacula_bridge.locks import locked
from bacula_bridge.programs import Programs

pytestmark = pytest.mark.bacula

needs_apt = pytest.mark.skipif(
    shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None,
    reason="there is no apt-get or dpkg-deb on this machine",
)


def test_the_programs_run_and_carry_the_catalogs_tables(bacula_programs: Programs):
    assert int(bacula_programs.version.split(".")[0]) >= 15
    assert "CREATE TABLE JobMedia" in bacula_programs.catalog_sql()


def test_a_complete_cache_is_used_without_a_mirror(
    bacula_programs: Programs, monkeypatch: pytest.MonkeyPatch
):
    if not bacula_programs.private:
        pytest.skip("an installed Bacula is used here: there is no private copy to look at")
    monkeypatch.setenv("PATH", "/nonexistent")
    assert programs.provision(programs.default_cache(), mirror="x") == bacula_programs


@needs_apt
def test_a_mirror_that_cannot_be_reached_is_one_sentence_and_leaves_nothing(tmp_path: Path):
    cache = tmp_path / "cache"
    with pytest.raises(DownloadFailed, match="package lists"):
        programs.provision(cache, mirror=f"file:{tmp_path}/no-such-mirror")
    assert [path.name for path in cache.iterdir()] == ["bacula-15.0.3.lock"]


@needs_apt
def test_what_an_interrupted_fetch_left_is_removed_by_the_next_one(tmp_path: Path):
    left = tmp_path / ".bacula-15.0.3.abc" / "root"
    left.mkdir(parents=True)
    with pytest.raises(DownloadFailed):
        programs.provision(tmp_path, mirror=f"file:{tmp_path}/no-such-mirror")
    assert not left.parent.exists()


def test_an_incomplete_copy_is_not_taken_for_the_programs(tmp_path: Path):
    root = tmp_path / "bacula-15.0.3"
    root.mkdir()
    assert programs.cached(tmp_path) is None
    sizes = {"usr/sbin/bacula-fd": 5}
    marker = {"architecture": debian.architecture()[0], "version": "15.0.3", "sizes": sizes}
    (root / "forebay.json").write_text(json.dumps(marker))
    assert programs.cached(tmp_path) is None
    (root / "usr" / "sbin").mkdir(parents=True)
    (root / "usr" / "sbin" / "bacula-fd").write_text("12345")
    assert programs.cached(tmp_path) is not None


def test_a_second_fetch_waits_for_the_first_and_gives_up_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(programs, "LOCK_WAIT_S", 0.1)
    with locked(tmp_path / "bacula-15.0.3.lock", 1), pytest.raises(LockTimeout):
        programs.provision(tmp_path)


def test_a_machine_without_apt_or_keys_gets_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nonexistent")
        with pytest.raises(ProgramsMissing, match="no apt-get"):
            programs.provision(tmp_path / "a", mirror="http://mirror.invalid/debian")
    with pytest.raises(NoKeyring, match="debian-archive-keyring"):
        debian.archive_keyring(tmp_path)
    with pytest.raises(BadValue, match="colons"):
        programs.provision(tmp_path / "a:b")
