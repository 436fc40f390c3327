"""How a service starts: by hand, as a submission, by a hook; and what is wrong said at the start.

Covers: `ray job submit` of serve and of a scan through the SDK and the command line, jobs whose
hooks start the service, bad input, a GCS that forgot the cluster.
Does not cover: faults in the middle of runs (test_site_faults), the rendered resources as such
(test_bacula_site).
"""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.system.site_service import COMMAND_S, FOREBAY, SHARDS, SiteService, await_true

pytestmark = [pytest.mark.ray, pytest.mark.bacula, pytest.mark.timeout(600)]

SUBMIT = """\
import json, sys, time
from ray.job_submission import JobSubmissionClient
client = JobSubmissionClient(sys.argv[1])
found = {}
names = [client.submit_job(entrypoint=line) for line in sys.argv[2:]]
deadline = time.monotonic() + 120
for name in names:
    while not client.get_job_status(name).is_terminal():
        assert time.monotonic() < deadline, (name, client.get_job_logs(name))
        time.sleep(0.2)
    found[name] = [client.get_job_info(name).driver_exit_code, client.get_job_logs(name)]
print(json.dumps([found[name] for name in names]))
"""


@pytest.fixture(scope="module")
def site():
    one = SiteService()
    try:
        (one.root / "file").write_text("some")
        yield one
    finally:
        one.close()


@pytest.fixture
def without_service(site):
    site.forebay("stop", "--now")
    return site


def with_token(site):
    return {**site.environment, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": site.token}


def submit(site, *commands):
    """Submit through the SDK; return exit code and log of each."""
    argv = [sys.executable, "-c", SUBMIT, site.nodes.dashboard, *commands]
    done = subprocess.run(
        argv, env=with_token(site), capture_output=True, text=True, timeout=COMMAND_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def hook(site, when, jobid, mover="m1", config=None, **more):
    about = ["--jobid", jobid, "--job", f"job.{jobid}", "--mover", mover]
    for name, value in more.items():
        about += [f"--{name}", value]
    argv = [FOREBAY, "hook", when, *about, "--config", config or site.config]
    return subprocess.run(
        list(map(str, argv)), capture_output=True, text=True, timeout=COMMAND_S, check=False
    )


def submissions(site):
    """What Ray's job server has of ours that is not over."""
    code = (
        "import json, sys; from ray.job_submission import JobSubmissionClient as C;"
        "print(json.dumps([j.submission_id for j in C(sys.argv[1]).list_jobs()"
        " if not j.status.is_terminal() and 'serve' in (j.entrypoint or '')]))"
    )
    argv = [sys.executable, "-c", code, site.nodes.dashboard]
    done = subprocess.run(argv, env=with_token(site), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def stop_submissions(site):
    code = (
        "import sys; from ray.job_submission import JobSubmissionClient as C; c = C(sys.argv[1]);"
        "[c.stop_job(j.submission_id) for j in c.list_jobs() if not j.status.is_terminal()]"
    )
    argv = [sys.executable, "-c", code, site.nodes.dashboard]
    subprocess.run(argv, env=with_token(site), check=True, timeout=COMMAND_S)
    await_true(lambda: not submissions(site))


# Submissions


def test_driver_exit_codes_come_through_the_sdk(site, tmp_path):
    tree = tmp_path / "tree"
    (tree / "closed").mkdir(parents=True)
    tmp_path.chmod(0o755)
    scan = f"{FOREBAY} scan {tree} --json"
    if os.geteuid() == 0:
        scan = f"setpriv --bounding-set=-dac_override,-dac_read_search {scan}"
        os.chown(tree / "closed", 1234, 1234)
    (tree / "closed").chmod(0)
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(site.config.read_text().replace(str(site.token_file), f"{tmp_path}/no"))
    try:
        found = submit(
            site,
            f"{FOREBAY} scan {site.root} --json",
            scan,
            f"{FOREBAY} serve --config {wrong}",
            f"{FOREBAY} scan {tmp_path}/none",
        )
    finally:
        (tree / "closed").chmod(0o700)
    assert [code for code, _ in found] == [0, 3, 1, 2], found
    assert json.loads(found[0][1].splitlines()[-1])["inodes"] == 2
    assert json.loads(found[1][1].splitlines()[-1])["errors"] == 1
    assert "cannot be read" in found[2][1]


def test_ray_job_submit_serves(without_service):
    site = without_service
    ray = Path(sys.executable).with_name("ray")
    argv = [ray, "job", "submit", "--no-wait", "--address", site.nodes.dashboard, "--"]
    argv += [FOREBAY, "serve", "--config", site.config]
    subprocess.run(argv, env=with_token(site), check=True, capture_output=True, timeout=COMMAND_S)
    await_true(lambda: hook(site, "before", 1).stdout == "")
    await_true(lambda: all(not mover["trouble"] for mover in site.status()["movers"]))
    stop_submissions(site)
    assert site.status()["runs"] == []  # the service outlives the submission


# Hooks


def test_the_hooks_of_a_job_start_the_service_and_come_twice_or_never(without_service):
    site = without_service
    arguments = ("--config", site.config, "--program", FOREBAY)
    rendered = site.forebay("bacula", "config", "--dataset", "data", *arguments).stdout
    assert rendered.count("RunScript {") == 2 * SHARDS
    site.lab.set_resources("data", rendered)
    try:
        jobids = site.run_jobs("Full")  # two or more on each mover, all at once
        rows = site.ended(jobids)
        assert {row.outcome for row in rows} == {"T"}, "\n".join(map(site.log, jobids))
        for _ in range(2):
            assert hook(site, "after", jobids[0], status="OK").returncode == 0
        assert site.closed().run.state.value == "complete"
        started = [jobid for jobid in jobids if "it was started" in site.log(jobid)]
        assert started
        assert len(submissions(site)) == 1
    finally:
        stop_submissions(site)
        site.lab.set_resources("data", site._jobs())
    assert len(site.backup("Full").jobs) == SHARDS  # no hooks at all


def test_two_hooks_at_once_start_one_service(without_service):
    site = without_service
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda n: hook(site, "before", n, f"m{n % 2 + 1}"), range(11, 15)))
    assert [each.returncode for each in done] == [0] * 4, done
    assert len(submissions(site)) == 1
    stop_submissions(site)


# Bad input


def changed(site, tmp_path, old, new):
    """A configuration in which something is otherwise."""
    text = site.config.read_text()
    assert str(old) in text
    path = tmp_path / "changed.toml"
    path.write_text(text.replace(str(old), str(new)))
    return path


def refused(site, config, *command, code=1):
    done = site.forebay(*command, "--config", config, code=code)
    (line,) = ours(done.stderr)
    return line


def ours(text):
    """Our own sentences; Ray's library writes some of its own."""
    assert "Traceback" not in text, text
    return [line for line in text.splitlines() if line.startswith("forebay: ")]


@pytest.mark.parametrize("command", ["serve", "status", "stop"])
def test_a_wrong_token_is_named(site, tmp_path, command):
    wrong = tmp_path / "token"
    wrong.touch(0o600)
    wrong.write_text("0" * 32)
    said = refused(site, changed(site, tmp_path, site.token_file, wrong), command)
    assert f"refuses the token: that in {wrong} is not the cluster's" in said


def test_a_token_file_that_others_may_read_is_refused(site, tmp_path):
    wrong = tmp_path / "token"
    wrong.write_text(site.token)
    wrong.chmod(0o644)
    said = refused(site, changed(site, tmp_path, site.token_file, wrong), "serve")
    assert f"{wrong}: its mode 0644 lets others in" in said


@pytest.mark.parametrize("command", ["serve", "status"])
def test_ray_that_is_down_is_named_with_its_address(site, tmp_path, command):
    config = changed(site, tmp_path, site.nodes.address, "127.0.0.1:1")
    assert "127.0.0.1:1 cannot be used: [Errno 111] Connection refused" in refused(
        site, config, command
    )


def test_a_hook_without_ray_fails_its_job_with_a_sentence(without_service, tmp_path):
    config = changed(without_service, tmp_path, without_service.nodes.dashboard, "http://[::1]:1")
    done = hook(without_service, "before", 7, config=config)
    assert (done.returncode, done.stderr) == (1, "")
    assert "Ray's job server at http://[::1]:1 cannot start one: " in done.stdout
    assert "start Ray, then `forebay serve`, and run the job again" in done.stdout


def test_a_label_that_no_node_has_is_named(site, tmp_path):
    config = changed(site, tmp_path, '"m3"', '"m4"')
    assert "no living node of the Ray cluster is mover m4" in refused(site, config, "serve")


def test_two_nodes_with_one_label_are_refused(site):
    site.nodes.ask("add-as", "m3")
    try:
        said = refused(site, site.config, "serve")
        assert "mover m3: 2 living nodes have its label" in said
    finally:
        site.nodes.ask("kill", "again")
        await_true(lambda: site.run("serve", "--check").returncode == 0)


@pytest.mark.parametrize(
    ("directive", "wrong"),
    [("DIRport", "DIRport = 1"), ("Password", 'Password = "of another Director"')],
)
def test_a_director_that_is_down_or_another_one_is_named(site, tmp_path, directive, wrong):
    real = site.lab.lab.base / "conf" / "bconsole.conf"
    text, found = re.subn(rf"(?mi)^(\s*){directive}\s*=.*$", rf"\g<1>{wrong}", real.read_text())
    assert found == 1, real.read_text()
    other = tmp_path / "bconsole.conf"
    other.write_text(text)
    other.chmod(0o600)
    site.forebay("serve", "--detach")
    runs = len(site.runs())
    done = subprocess.run(
        [FOREBAY, "backup", "data"],
        env={**site.environment, "FOREBAY_CONFIG": str(changed(site, tmp_path, real, other))},
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    assert done.returncode == 1, done
    assert "bconsole could not reach the Director: " in ours(done.stderr)[-1]
    config = changed(site, tmp_path, real, other)
    warned, *_ = ours(site.forebay("serve", "--check", "--config", config).stderr)
    assert "bconsole could not reach the Director: " in warned
    assert len(site.runs()) == runs


def test_a_catalog_that_movers_cannot_ask_is_named(site, tmp_path):
    config = changed(site, tmp_path, site.lab.lab.catalog, tmp_path / "none.db")
    said = refused(site, config, "serve")
    assert f"mover m1: the catalog {tmp_path}/none.db cannot be read: " in said


def test_two_services_for_one_state_directory_are_refused(site, tmp_path):
    site.forebay("serve", "--detach")
    before = site.actor_pid("CoordinatorActor")
    config = changed(site, tmp_path, site.settings.state.ledger.parent, tmp_path / "ledger")
    said = refused(site, config, "serve")
    assert f"state directory {site.base}/state belongs to the run ledger" in said
    assert not (tmp_path / "ledger" / "ledger.sqlite").exists()
    assert site.actor_pid("CoordinatorActor") == before


# A GCS without a storage: last, for nothing works afterwards


def test_a_gcs_that_forgot_the_cluster_is_named_and_nothing_new_is_started(site):
    site.forebay("serve", "--detach")
    coordinator = site.actor_pid("CoordinatorActor")
    argv = [FOREBAY, "serve"]
    serve = subprocess.Popen(argv, env=site.environment, stderr=subprocess.PIPE, text=True)
    try:
        await_true(lambda: "serving" in serve.stderr.readline())
        site.nodes.ask("kill-gcs")
        site.nodes.ask("start-gcs")
        sentence = "cannot be found: Ray's GCS was restarted and knows nothing of its nodes"
        for command in ("status", "serve"):
            assert sentence in refused(site, site.config, command)
        # By the sentence, or by Ray's library, which aborts where it meets that itself.
        serve.communicate(timeout=COMMAND_S)
    finally:
        serve.kill()
        serve.communicate()
    assert serve.returncode not in (0, None)
    assert set(site.actor_pids("CoordinatorActor")) <= {coordinator}
