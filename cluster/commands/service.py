"""`forebay serve`, `stop`, `status`: the service of a site in its Ray cluster."""

from __future__ import annotations

import dataclasses
import signal
import sys
import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.commands.site import ConfigOption, site_config
from cluster.output import JsonOption, plural, print_json, show_size, show_time
from shards.errors import ForebayError

if TYPE_CHECKING:
    from bacula_bridge.coordinator import RunStatus
    from cluster.service import BridgeStatus
    from cluster.site_config import SiteConfig

STOP_WAIT_S = 3600.0


def _say(text: str) -> None:
    print(f"forebay: {text}", file=sys.stderr, flush=True)


def serve(
    config: ConfigOption = None,
    detach: Annotated[
        bool,
        typer.Option("--detach", help="Start the service and return; nobody looks after it then."),
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Look at all nodes, start nothing.")
    ] = False,
) -> None:
    """Start the service in the running Ray cluster, and look after it until SIGTERM.

    What runs already is left alone, or replaced if the program or the configuration changed. The
    service outlives this command: `forebay stop` ends it.
    """
    from cluster.site_ray import connected

    site = site_config(config)
    connected(site)
    from cluster.preflight import check_nodes, warnings
    from cluster.service import Service

    _ask_director(site)
    if check:
        found = check_nodes(site)
        for warning in warnings(found):
            _say(warning)
        for mover, facts in found.items():
            print(f"{mover}: {facts.host}, Forebay {facts.forebay}, Python {facts.python}: good")
        return
    service = Service(site, _say)
    service.start()
    movers = plural(len(site.mover), "data mover")
    _say(f"serving {plural(len(site.dataset), 'dataset')} on {movers}")
    if detach:
        return
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    service.look_after(stopping)


def _ask_director(site: SiteConfig) -> None:
    """Say what keeps us from the Director; the service needs it for nothing but its jobs."""
    from cluster.sites import site_director

    try:
        site_director(site).progress([])
    except ForebayError as error:
        _say(f"{error}; until then no job comes, and `forebay backup` starts none")


def stop(
    config: ConfigOption = None,
    now: Annotated[
        bool, typer.Option("--now", help="Do not wait for open runs: their jobs fail.")
    ] = False,
    wait: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", min=0, help="For the end of open runs.")
    ] = STOP_WAIT_S,
) -> None:
    """End the service: after its open runs, while no new one begins, unless it is to be now."""
    from cluster.site_ray import connected

    site = site_config(config)
    connected(site)
    from cluster.service import stop as stop_service

    _say("stopped" if stop_service(site, wait, now, _say) else "no service was running")


def status(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Show the service: its open runs, what each data mover streams."""
    from cluster.site_ray import connected

    site = site_config(config)
    connected(site)
    from cluster.service import bridges, is_draining, open_runs

    runs, movers, draining = open_runs(site), bridges(site), is_draining(site)
    if json:
        print_json({"draining": draining, **_as_json(runs, movers)})
        return
    if draining:
        print("no new run is opened: `forebay stop` was called; `forebay serve` takes it back")
    for run in runs:
        print(_run_line(run))
    if not runs:
        print("no run is open")
    for mover in movers:
        print(f"mover {mover.mover}: {mover.trouble or plural(len(mover.streams), 'stream')}")
        for each in mover.streams:
            print(
                f"  run {each.run}  shard {each.shard}  JobId {each.jobid}"
                f"  {each.acknowledged:,} of {each.total:,} names  {show_size(each.size_bytes)}"
                f"  {plural(each.warnings, 'warning')}"
            )


def _run_line(status: RunStatus) -> str:
    run = status.run
    saved = sum(job.state.value == "good" for job in status.jobs)
    scan = "scanned" if run.scan_ended is not None else "scanning"
    return (
        f"run {run.number} of {run.dataset}, {run.level}, since {show_time(run.started)}: {scan}"
        f" {status.scan.inodes:,} inodes, {saved}/{run.shards} shards saved"
    )


def _as_json(runs: list[RunStatus], movers: list[BridgeStatus]) -> dict[str, Any]:
    return {
        "runs": [
            {
                "run": status.run.number,
                "dataset": status.run.dataset,
                "level": status.run.level,
                "started": status.run.started,
                "scan_ended": status.run.scan_ended,
                "inodes": status.scan.inodes,
                "shards": status.run.shards,
                "jobs": [
                    {"shard": job.shard, "jobid": job.jobid, "state": job.state.value}
                    for job in status.jobs
                ],
            }
            for status in runs
        ],
        "movers": [
            {
                "mover": mover.mover,
                "trouble": mover.trouble or None,
                "streams": [dataclasses.asdict(stream) for stream in mover.streams],
            }
            for mover in movers
        ],
    }
