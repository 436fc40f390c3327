"""`forebay hook before|after`: what Bacula runs on a data mover around each job.

Covers: whether the mover's bridge answers, starting the service if it does not, telling it of the
job. Standard library only: it is run N times a night, and has 150 ms.
Does not cover: what counts; that is the catalog. A hook that is missing, late or run twice changes
nothing.

What it prints goes to the job log; exit code 1 of `before` fails the job.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import stat
import struct
import sys
import time
import tomllib
import zlib
from pathlib import Path
from typing import Any, NoReturn

USAGE = (
    "usage: forebay hook before|after --jobid N --job NAME [--level L] [--status S] [--mover NAME]"
    " [--config FILE]"
)
DEFAULT_CONFIG = "/etc/forebay/forebay.toml"
DEFAULT_RUNTIME = "/run/forebay"
DEFAULT_DASHBOARD = "http://127.0.0.1:8265"
DEFAULT_TOKEN_FILE = "/etc/forebay/ray.token"
ANSWER_TIMEOUT_S = 10.0
START_WAIT_S = 120.0  # for the bridge, once a service was asked for
START_POLL_S = 0.5
SUBMIT_TRIES = 3  # a Ray that was just started has no agent yet; it waits 10 s for one each time
_TRY_AGAIN = "try again later"
LOOK_PERIOD_S = 2.0  # how often the submission is asked for, whether it has failed
HTTP_TIMEOUT_S = 20.0
HTTP_BYTES_MAX = 8 << 20
TOKEN_BYTES_MAX = 4096
SUBMISSION = "forebay-serve-"
WORDS_MAX = 300
_OPTIONS = frozenset({"jobid", "job", "level", "status", "mover", "config"})

# As in bacula_bridge.protocol, which needs numpy.
HEADER = struct.Struct("<IHHII")
MAGIC = 0x31534246
HINT, DONE_ACK = 11, 9


class HookFailed(Exception):
    """The job cannot have a stream; the sentence goes to its log."""


def main(arguments: list[str]) -> int:
    """Run a hook; return the exit code."""
    try:
        when, options = _parse(arguments)
        config = _configuration(options.get("config"))
        path = _socket(config, options.get("mover", ""))
        hint = {name: options.get(name, "") for name in ("jobid", "job", "level", "status")}
        frame = _frame({"when": when, **hint})
        if when == "after":
            _tell(path, frame)  # nobody there: the catalog says it all
            return 0
        if not _tell(path, frame):
            _await(path, frame, config, _start(config))
    except HookFailed as failed:
        print(f"forebay: {failed}")
        return 1
    return 0


def _parse(arguments: list[str]) -> tuple[str, dict[str, str]]:
    when, *rest = arguments or [""]
    options = {}
    if when not in ("before", "after") or len(rest) % 2:
        _usage()
    for name, value in zip(rest[::2], rest[1::2], strict=True):
        if not name.startswith("--") or name[2:] not in _OPTIONS:
            _usage()
        options[name[2:]] = value
    if not options.get("jobid", "").isdecimal():
        _usage()
    return when, options


def _usage() -> NoReturn:
    print(USAGE, file=sys.stderr)
    raise SystemExit(2)


def _configuration(named: str | None) -> dict[str, Any]:
    """Read the file; that it is right was checked by `forebay serve`."""
    path = named or os.environ.get("FOREBAY_CONFIG") or DEFAULT_CONFIG
    try:
        with open(path, "rb") as file:
            return {**tomllib.load(file), "": os.path.abspath(path)}
    except (OSError, ValueError) as error:
        raise HookFailed(f"the configuration {path} cannot be read: {error}") from error


def _socket(config: dict[str, Any], mover: str) -> str:
    runtime = str(config.get("runtime", DEFAULT_RUNTIME))
    if "{mover}" in runtime and not mover:
        raise HookFailed("runtime has {mover} in it, and the hook no --mover: render it anew")
    return os.path.join(runtime.replace("{mover}", mover), "bridge.sock")


def _frame(hint: dict[str, str]) -> bytes:
    payload = json.dumps(hint).encode()
    return HEADER.pack(MAGIC, HINT, 0, len(payload), zlib.crc32(payload)) + payload


def _tell(path: str, frame: bytes) -> bool:
    """Tell the bridge of the job; False if nobody answers."""
    try:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(ANSWER_TIMEOUT_S)
            peer.connect(path)
            peer.sendall(frame)
            answer = peer.recv(HEADER.size, socket.MSG_WAITALL)
    except OSError:
        return False
    return len(answer) == HEADER.size and HEADER.unpack(answer)[:2] == (MAGIC, DONE_ACK)


def _await(path: str, frame: bytes, config: dict[str, Any], submission: str) -> None:
    deadline = time.monotonic() + START_WAIT_S
    looked = time.monotonic()
    while not _tell(path, frame):
        if time.monotonic() > deadline:
            raise HookFailed(
                f"a service was started, but no bridge listens on {path} after"
                f" {START_WAIT_S:.0f} s; `forebay status` and the log of submission {submission}"
                " say why"
            )
        if time.monotonic() - looked > LOOK_PERIOD_S:
            if not _is_going_on(config, submission):
                submission = _start(config)
            looked = time.monotonic()
        time.sleep(START_POLL_S)


def _is_going_on(config: dict[str, Any], submission: str) -> bool:
    """Fail if the submission has failed; False if it ended well, as after `forebay stop`."""
    job = _ask(config, "GET", f"/api/jobs/{submission}", None)
    if isinstance(job, dict) and job.get("status") == "SUCCEEDED":
        return False
    if isinstance(job, dict) and job.get("status") in ("FAILED", "STOPPED"):
        logs = _ask(config, "GET", f"/api/jobs/{submission}/logs", None)
        words = str(logs.get("logs") or "") if isinstance(logs, dict) else ""
        said = (words.strip().splitlines() or [str(job.get("message"))])[-1][-WORDS_MAX:]
        raise HookFailed(f"the Forebay service did not start (submission {submission}): {said}")
    return True


def _start(config: dict[str, Any]) -> str:
    """Submit `forebay serve`, unless a submission of it is there already; return its name.

    The name is the next number, so that of hooks that come at once all but one are refused.
    """
    jobs = _ask(config, "GET", "/api/jobs/", None)
    newest = 0
    for job in jobs if isinstance(jobs, list) else []:
        name = str(job.get("submission_id") or "")
        number = name.removeprefix(SUBMISSION)
        if number == name or not number.isdecimal():
            continue
        if job.get("status") in ("PENDING", "RUNNING"):
            return name
        newest = max(newest, int(number))
    program = Path(sys.argv[0]).resolve()
    name = f"{SUBMISSION}{newest + 1}"
    command = f"{shlex.quote(str(program))} serve --config {shlex.quote(config[''])}"
    request = {"entrypoint": command, "submission_id": name}
    for left in reversed(range(SUBMIT_TRIES)):
        try:
            _ask(config, "POST", "/api/jobs/", request)
            break
        except HookFailed as failed:
            if _TRY_AGAIN not in str(failed) or not left:
                raise
    print("forebay: the Forebay service did not run; it was started")
    return name


def _ask(config: dict[str, Any], method: str, path: str, body: dict[str, str] | None) -> Any:
    """Ask Ray's job server."""
    import urllib.error
    import urllib.request

    ray = config.get("ray", {})
    address = str(ray.get("dashboard", DEFAULT_DASHBOARD)).rstrip("/")
    headers = {"Content-Type": "application/json"}
    token = _token(ray.get("token_file", DEFAULT_TOKEN_FILE))
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(address + path, data, headers, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=HTTP_TIMEOUT_S) as response:
            return json.loads(response.read(HTTP_BYTES_MAX))
    except urllib.error.HTTPError as error:
        words = error.read(HTTP_BYTES_MAX).decode("utf-8", "replace").strip()
        # It may answer with what it was sent.
        words = words.replace(token, "***") if token else words
        if method == "POST" and "already exists" in words:
            return None  # another hook was quicker
        reason = f"{error.code} {words.splitlines()[-1][:WORDS_MAX] if words else error.reason}"
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "reason", error))
    raise HookFailed(
        f"no Forebay service answers on this mover, and Ray's job server at {address} cannot start"
        f" one: {reason}; start Ray, then `forebay serve`, and run the job again"
    )


def _token(path: str | None) -> str:
    if not path:
        return ""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(TOKEN_BYTES_MAX)
    except OSError as error:
        raise HookFailed(f"{path} cannot be read: {error.strerror}") from error
    if status.st_mode & 0o077:
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        raise HookFailed(f"{path} has mode {mode}, which lets others in; make it 0600")
    return data.decode("utf-8", "replace").strip()
