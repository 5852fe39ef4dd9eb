"""`kvsync replay`."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from kvsync.load.arrivals import Arrivals, arrival_times
from kvsync.load.ideal import compute_ideal
from kvsync.load.prompts import Prompt, make_prompts
from kvsync.load.synthetic import make_trace, read_synthetic
from kvsync.load.trace import TraceRequest, read_trace
from kvsync.replay.live import find_model, replay_live
from kvsync.replay.records import SHARES, ReplayResult
from kvsync.replay.report import Described, build_report
from kvsync.report.files import write_whole
from kvsync.running import client_session, run_interruptible
from kvsync_indexer.router.policies import POLICY_NAMES

BLOCK_SIZE = 16


@click.command("replay")
@click.argument("trace", required=False, type=click.Path(path_type=Path))
@click.option("--synthetic", type=click.Path(path_type=Path), help="YAML workload instead of a trace.")
@click.option("--target", metavar="URL", help="Replay against this OpenAI server.")
@click.option("--offline", is_flag=True, help="Replay in virtual time, in this process.")
@click.option("--requests", type=click.IntRange(min=1), help="Only the first so many.")
@click.option(
    "--speed", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True, help="Of arrivals."
)
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Requests a second instead of the trace's times."
)
@click.option("--poisson", type=click.FloatRange(min=0, min_open=True), help="The same, at random with this mean.")
@click.option("--concurrency", type=click.IntRange(min=1), help="Requests in flight at most.")
@click.option("--scale", type=click.IntRange(min=1), default=1, show_default=True, help="Divide lengths by this.")
@click.option("--model", help="Live: model to ask for [default: the first the server lists].")
@click.option("--policy", type=click.Choice(POLICY_NAMES), default="kv", show_default=True, help="Offline.")
@click.option("--workers", type=click.IntRange(1, 1024), default=1, show_default=True, help="Offline: engines.")
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the report here.")
@click.option("--html", "html_file", type=click.Path(path_type=Path), help="Write the page here.")
def command(**flags: Any) -> None:  # noqa: ANN401
    """Replay TRACE live against --target, or --offline in virtual time; report hits, latency and balance."""
    arrivals = _arrivals(flags)
    source, requests = _requests(flags)
    prompts = make_prompts(requests, flags["scale"], arrival_times(requests, arrivals, flags["seed"]))
    begun = time.perf_counter()
    policy, settings, result = _run(flags, prompts, arrivals)
    wall_s = time.perf_counter() - begun
    described = Described(
        mode="offline" if flags["offline"] else "live",
        source=source,
        seed=flags["seed"],
        policy=policy,
        scale=flags["scale"],
        block_size=BLOCK_SIZE,
        arrivals=arrivals,
        settings=settings,
    )
    report = build_report(described, result, compute_ideal(prompts, BLOCK_SIZE))
    _write(report, flags["json_file"], flags["html_file"])
    _print(report, wall_s)
    sys.exit(1 if report["failed"] else 0)


def _arrivals(flags: dict[str, Any]) -> Arrivals:
    if flags["rate"] is not None and flags["poisson"] is not None:
        raise click.UsageError("--rate and --poisson exclude each other")
    cap = flags["concurrency"]
    if flags["rate"] is not None:
        return Arrivals("rate", rate=flags["rate"], max_in_flight=cap)
    if flags["poisson"] is not None:
        return Arrivals("poisson", rate=flags["poisson"], max_in_flight=cap)
    return Arrivals("trace", speed=flags["speed"], max_in_flight=cap)


def _requests(flags: dict[str, Any]) -> tuple[str, list[TraceRequest]]:
    if (flags["trace"] is None) == (flags["synthetic"] is None):
        raise click.UsageError("give a trace or --synthetic FILE")
    if (flags["target"] is None) != flags["offline"]:
        raise click.UsageError("give --target URL or --offline")
    if flags["trace"] is not None:
        return str(flags["trace"]), read_trace(flags["trace"], flags["requests"])
    requests = make_trace(read_synthetic(flags["synthetic"]), flags["seed"])
    return str(flags["synthetic"]), requests[: flags["requests"]]


def _run(
    flags: dict[str, Any], prompts: list[Prompt], arrivals: Arrivals
) -> tuple[str | None, dict[str, Any], ReplayResult]:
    url = flags["target"].rstrip("/")
    url = url if "://" in url else f"http://{url}"

    async def run() -> tuple[str, ReplayResult]:
        async with client_session() as session:
            model = flags["model"] or await find_model(session, url)
            return model, await replay_live(session, url, model, prompts, arrivals.max_in_flight)

    model, result = run_interruptible(run())
    return None, {"target": url, "model": model}, result


def _write(report: dict[str, Any], json_file: Path | None, html_file: Path | None) -> None:
    if json_file is not None:
        write_whole(json_file, json.dumps(report, indent=2) + "\n")
    if html_file is not None:
        from kvsync.replay.page import build_page
        from kvsync.report.page import render

        write_whole(html_file, render(build_page(report)))


def _print(report: dict[str, Any], wall_s: float) -> None:
    console = Console(highlight=False)
    per_s = report["requests"] / wall_s if wall_s else 0.0
    console.print(
        f"{report['requests']:,} requests, {report['failed']} failed, {report['duration_s']:,.1f} s "
        f"({wall_s:.1f} s of wall time, {per_s:,.0f} requests a second)"
    )
    console.print(f"hit ratio {report['hit_ratio']:.2%}, ideal {report['ideal_hit_ratio']:.2%}")
    table = Table(box=None, padding=(0, 2), pad_edge=False, header_style="bold")
    table.add_column("ms")
    columns = ("mean", *(name for name, _ in SHARES), "max")
    for column in columns:
        table.add_column(column, justify="right")
    for key, name in (("ttft_ms", "first token"), ("itl_ms", "between tokens"), ("e2e_ms", "whole answer")):
        row = report[key]
        table.add_row(name, *("-" if row[column] is None else f"{row[column]:,.2f}" for column in columns))
    console.print(table)
