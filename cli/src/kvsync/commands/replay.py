"""`kvsync replay`."""

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from kvsync.errors import UsageProblemError
from kvsync.load.arrivals import Arrivals, arrival_times
from kvsync.load.ideal import compute_ideal
from kvsync.load.prompts import PromptStream
from kvsync.load.synthetic import make_trace, read_synthetic
from kvsync.load.trace import TRACE_BLOCK_TOKENS, TraceRequest, read_trace
from kvsync.replay.live import find_model, replay_live
from kvsync.replay.offline import OfflineSettings, ideal_hit_ratio, replay_offline
from kvsync.replay.records import SHARES, ReplayResult
from kvsync.replay.report import Described, build_report
from kvsync.report.files import write_whole
from kvsync.running import client_session, run_interruptible
from kvsync_router.decisions.policies import POLICY_NAMES

POSITIVE = click.FloatRange(min=0, min_open=True)
CORES = ("auto", "python", "native")
Runs = tuple[str | None, dict[str, Any], ReplayResult, float]
"""Policy, settings, result, ideal hit ratio."""


@click.command("replay")
@click.argument("trace", required=False, type=click.Path(path_type=Path))
@click.option("--synthetic", type=click.Path(path_type=Path), help="YAML workload instead of a trace.")
@click.option("--target", metavar="URL", help="Replay against this OpenAI server.")
@click.option("--offline", is_flag=True, help="Replay in virtual time, in this process.")
@click.option("--requests", type=click.IntRange(min=1), help="Only the first so many.")
@click.option("--speed", type=POSITIVE, default=1.0, show_default=True, help="Of the trace's arrivals.")
@click.option("--rate", type=POSITIVE, help="Requests a second, instead of the trace's times.")
@click.option("--poisson", type=POSITIVE, help="The same, at random with this mean.")
@click.option("--concurrency", type=click.IntRange(min=1), help="Requests in flight at most [live default: 64].")
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True)
@click.option("--block-size", type=click.IntRange(1, 512), default=16, show_default=True, help="Of the engines.")
@click.option("--model", help="Live: model to ask for [default: the first the server lists].")
@click.option("--scale", type=click.IntRange(min=1), default=1, show_default=True, help="Live: divide lengths by this.")
@click.option("--policy", type=click.Choice(POLICY_NAMES), default="kv", show_default=True, help="Offline.")
@click.option("--workers", type=click.IntRange(1, 1024), default=1, show_default=True, help="Offline: engines.")
@click.option("--blocks", type=click.IntRange(2), default=16_384, show_default=True, help="Offline: blocks an engine.")
@click.option(
    "--batched-tokens", type=click.IntRange(1), default=8192, show_default=True, help="Offline: a step's budget."
)
@click.option("--host-blocks", type=click.IntRange(0), default=0, show_default=True, help="Offline: host tier.")
@click.option("--disk-blocks", type=click.IntRange(0), default=0, show_default=True, help="Offline: disk tier.")
@click.option("--latency", default="quadratic", show_default=True, help="Offline: profile or formula of the engines.")
@click.option("--core", type=click.Choice(CORES), default="auto", show_default=True, help="Offline: index core.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the report here.")
@click.option("--html", "html_file", type=click.Path(path_type=Path), help="Write the page here.")
def command(**flags: Any) -> None:  # noqa: ANN401
    """Replay TRACE live against --target, or --offline in virtual time; report hits, latency and balance.

    Offline, one seed gives one report, byte for byte.
    """
    arrivals = _arrivals(flags)
    source, requests = _requests(flags)
    times = arrival_times(requests, arrivals, flags["seed"])
    begun = time.perf_counter()
    run = _run_offline if flags["offline"] else _run_live
    policy, settings, result, ideal_hit_ratio = run(flags, requests, times)
    wall_s = time.perf_counter() - begun
    described = Described(
        mode="offline" if flags["offline"] else "live",
        source=source,
        seed=flags["seed"],
        policy=policy,
        scale=flags["scale"],
        block_size=flags["block_size"],
        arrivals=arrivals,
        settings=settings,
    )
    report = build_report(described, result, ideal_hit_ratio)
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
    if (flags["target"] is not None) == flags["offline"]:
        raise click.UsageError("give --target URL or --offline")
    if flags["offline"] and flags["scale"] != 1:
        raise click.UsageError("--scale is for live replays: offline, full lengths cost nothing")
    if flags["trace"] is not None:
        return str(flags["trace"]), read_trace(flags["trace"], flags["requests"])
    requests = make_trace(read_synthetic(flags["synthetic"]), flags["seed"])
    return str(flags["synthetic"]), requests[: flags["requests"]]


def _run_offline(flags: dict[str, Any], requests: list[TraceRequest], times: list[float]) -> Runs:
    settings = OfflineSettings(
        workers=flags["workers"],
        policy=flags["policy"],
        seed=flags["seed"],
        blocks=flags["blocks"],
        block_size=flags["block_size"],
        max_batched_tokens=flags["batched_tokens"],
        latency=flags["latency"],
        host_blocks=flags["host_blocks"],
        disk_blocks=flags["disk_blocks"],
        core=flags["core"],
    )
    result, ideal_hit_ratio = replay_offline(requests, times, flags["concurrency"], settings)
    return settings.policy, settings.describe(), result, ideal_hit_ratio


def _run_live(flags: dict[str, Any], requests: list[TraceRequest], times: list[float]) -> Runs:
    url = flags["target"].rstrip("/")
    url = url if "://" in url else f"http://{url}"
    prompts = PromptStream(requests, flags["scale"], times)

    async def run() -> tuple[str, ReplayResult]:
        async with client_session() as session:
            model = flags["model"] or await find_model(session, url)
            return model, await replay_live(session, url, model, prompts, flags["concurrency"])

    model, result = run_interruptible(run())
    return None, {"target": url, "model": model}, result, _live_ideal(flags, requests, prompts)


def _live_ideal(flags: dict[str, Any], requests: list[TraceRequest], prompts: PromptStream) -> float:
    """From block ids where they say it all; otherwise from the tokens, which takes memory for a long trace."""
    if flags["scale"] == 1 and TRACE_BLOCK_TOKENS % flags["block_size"] == 0:
        with contextlib.suppress(UsageProblemError):
            return ideal_hit_ratio(requests, flags["block_size"])
    return compute_ideal(prompts, flags["block_size"]).hit_ratio


def _write(report: dict[str, Any], json_file: Path | None, html_file: Path | None) -> None:
    if json_file is not None:
        write_whole(json_file, json.dumps(report, indent=2) + "\n")
    if html_file is not None:
        from kvsync.replay.page import build_page
        from kvsync.report.page import render

        write_whole(html_file, render(build_page(report)))


def _print(report: dict[str, Any], wall_s: float) -> None:
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=120)
    per_s = report["requests"] / wall_s if wall_s else 0.0
    console.print(
        f"{report['requests']:,} requests, {report['failed']} failed, {report['duration_s']:,.1f} s "
        f"({wall_s:.1f} s of wall time, {per_s:,.0f} requests a second)"
    )
    console.print(f"hit ratio {report['hit_ratio']:.2%}, ideal {report['ideal_hit_ratio']:.2%}")
    table = Table(box=None, padding=(0, 2), pad_edge=False, header_style="bold")
    table.add_column("ms", no_wrap=True)
    columns = ("mean", *(name for name, _ in SHARES), "max")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for key, name in (("ttft_ms", "first token"), ("itl_ms", "between tokens"), ("e2e_ms", "whole answer")):
        row = report[key]
        table.add_row(name, *("-" if row[column] is None else f"{row[column]:,.2f}" for column in columns))
    console.print(table)
