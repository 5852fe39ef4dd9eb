"""`kvsync replay`."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from kvsync.addresses import check_http_url
from kvsync.replay.failures import failure_text
from kvsync.replay.limits import ServerLimits, find_limits, fit_requests
from kvsync.replay.live import replay_live
from kvsync.replay.offline import OfflineSettings, replay_offline
from kvsync.replay.records import ReplayResult
from kvsync.replay.report import Described, build_report
from kvsync.report.files import write_whole
from kvsync.report.order import order_note
from kvsync.running import client_session, run_interruptible
from kvsync_router.decisions.policies import DEFAULT_DECODE_WEIGHT, DEFAULT_PREFILL_WEIGHT, POLICY_NAMES
from kvsync_workload.arrivals import Arrivals, arrival_times
from kvsync_workload.ideal import compute_ideal
from kvsync_workload.percentiles import REPORTED
from kvsync_workload.prompts import PromptStream, Scale
from kvsync_workload.reading import read_workload
from kvsync_workload.synthetic import make_trace, read_synthetic
from kvsync_workload.trace import Trace, TraceRequest

POSITIVE = click.FloatRange(min=0, min_open=True)
SHOWN_FAILURES = 3
CORES = ("auto", "python", "native")
Runs = tuple[str | None, dict[str, Any], ReplayResult, float]
"""Policy, settings, result and ideal hit ratio."""


@click.command("replay")
@click.argument("trace", required=False, type=click.Path(path_type=Path))
@click.option("--synthetic", type=click.Path(path_type=Path), help="YAML workload instead of a trace.")
@click.option("--target", metavar="URL", help="Replay against this OpenAI server.")
@click.option("--offline", is_flag=True, help="Replay in virtual time, in this process.")
@click.option("--requests", type=click.IntRange(min=1), help="Replay only the first requests of the file.")
@click.option("--speed", type=POSITIVE, default=1.0, show_default=True, help="How many times faster than recorded.")
@click.option("--rate", type=POSITIVE, help="Requests per second, instead of the times in the trace.")
@click.option("--poisson", type=POSITIVE, help="The same, as a Poisson process.")
@click.option("--concurrency", type=click.IntRange(min=1), help="Maximum of requests in flight [live default: 64].")
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True)
@click.option(
    "--block-size", type=click.IntRange(1, 512), default=16, show_default=True, help="Block size of the engines."
)
@click.option("--model", help="Live: the model [default: the first that the server lists].")
@click.option(
    "--vocab-size",
    type=click.IntRange(2),
    help="Live: number of token ids that the engine accepts [default: measured with one-token requests].",
)
@click.option(
    "--scale", type=click.IntRange(min=1), default=1, show_default=True, help="Live: divide all lengths by this."
)
@click.option(
    "--policy", type=click.Choice(POLICY_NAMES), default="kv", show_default=True, help="Offline: routing policy."
)
@click.option(
    "--prefill-weight",
    type=click.FloatRange(min=0),
    default=DEFAULT_PREFILL_WEIGHT,
    show_default=True,
    help="Offline, kv: cost of a prompt token that waits for its prefill.",
)
@click.option(
    "--decode-weight",
    type=click.FloatRange(min=0),
    default=DEFAULT_DECODE_WEIGHT,
    show_default=True,
    help="Offline, kv: cost of a context token of a running request.",
)
@click.option(
    "--workers", type=click.IntRange(1, 1024), default=1, show_default=True, help="Offline: number of engines."
)
@click.option("--blocks", type=click.IntRange(2), default=16_384, show_default=True, help="Offline: blocks per engine.")
@click.option(
    "--batched-tokens", type=click.IntRange(1), default=8192, show_default=True, help="Offline: token budget per step."
)
@click.option(
    "--host-blocks", type=click.IntRange(0), default=0, show_default=True, help="Offline: blocks of the host tier."
)
@click.option(
    "--disk-blocks", type=click.IntRange(0), default=0, show_default=True, help="Offline: blocks of the disk tier."
)
@click.option(
    "--latency", default="quadratic", show_default=True, help="Offline: latency profile or formula of the engines."
)
@click.option("--core", type=click.Choice(CORES), default="auto", show_default=True, help="Offline: index core.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the report here.")
@click.option("--html", "html_file", type=click.Path(path_type=Path), help="Write the page here.")
def command(**flags: Any) -> None:  # noqa: ANN401
    """Replay TRACE live against --target, or --offline in virtual time, and report hits, latency and balance.

    Offline, equal seeds give equal reports, byte for byte.
    """
    arrivals = _arrivals(flags)
    source, trace = _trace(flags)
    begun = time.perf_counter()
    run = _run_offline if flags["offline"] else _run_live
    policy, settings, result, ideal_hit_ratio = run(flags, trace.requests, arrivals)
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
        reordered=trace.reordered,
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


def _trace(flags: dict[str, Any]) -> tuple[str, Trace]:
    if (flags["trace"] is None) == (flags["synthetic"] is None):
        raise click.UsageError("give a trace or --synthetic FILE")
    if (flags["target"] is not None) == flags["offline"]:
        raise click.UsageError("give --target URL or --offline")
    if flags["offline"] and flags["scale"] != 1:
        raise click.UsageError("--scale is for live replays: offline, full lengths are cheap")
    if flags["trace"] is not None:
        return str(flags["trace"]), read_workload(flags["trace"], flags["requests"])
    requests = make_trace(read_synthetic(flags["synthetic"]), flags["seed"])
    return str(flags["synthetic"]), Trace(tuple(requests[: flags["requests"]]))


def _run_offline(flags: dict[str, Any], requests: Sequence[TraceRequest], arrivals: Arrivals) -> Runs:
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
        prefill_weight=flags["prefill_weight"],
        decode_weight=flags["decode_weight"],
    )
    result, ideal_hit_ratio = replay_offline(requests, arrivals, settings)
    return settings.policy, settings.describe(), result, ideal_hit_ratio


def _run_live(flags: dict[str, Any], requests: Sequence[TraceRequest], arrivals: Arrivals) -> Runs:
    url = check_http_url(flags["target"], "--target")
    times = arrival_times(requests, arrivals, flags["seed"])
    Scale(flags["scale"])

    async def run() -> tuple[ServerLimits, int, Sequence[TraceRequest], ReplayResult]:
        async with client_session() as session:
            limits = await find_limits(session, url, flags["model"], flags["vocab_size"])
            fitted, cut = fit_requests(requests, flags["scale"], limits.max_model_len)
            prompts = PromptStream(fitted, flags["scale"], times)
            return limits, cut, fitted, await replay_live(session, url, limits, prompts, arrivals.max_in_flight)

    limits, cut, fitted, result = run_interruptible(run())
    ideal = compute_ideal(fitted, flags["block_size"], flags["scale"])
    return None, {"target": url, **limits.describe(), "shortened": cut}, result, ideal.hit_ratio


def _write(report: dict[str, Any], json_file: Path | None, html_file: Path | None) -> None:
    if json_file is not None:
        write_whole(json_file, json.dumps(report, indent=2) + "\n")
    if html_file is not None:
        from kvsync.replay.page import build_page
        from kvsync_pages import render

        write_whole(html_file, render(build_page(report)))


def _print(report: dict[str, Any], wall_s: float) -> None:
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=120)
    per_s = report["requests"] / wall_s if wall_s else 0.0
    console.print(
        f"{report['requests']:,} requests, {report['failed']} failed, {report['duration_s']:,.1f} s "
        f"({wall_s:.1f} s of wall time, {per_s:,.0f} requests per second)"
    )
    console.print(f"hit ratio {report['hit_ratio']:.2%}, ideal {report['ideal_hit_ratio']:.2%}")
    for row in report["failures"][:SHOWN_FAILURES]:
        console.print(f"failed: {failure_text(row)}", markup=False)
    if report["settings"].get("shortened"):
        console.print(
            f"{report['settings']['shortened']:,} requests were cut to the engine's"
            f" {report['settings']['max_model_len']:,} tokens; --scale divides the lengths instead"
        )
    if report["reordered"]:
        console.print(order_note(report["reordered"]))
    table = Table(box=None, padding=(0, 2), pad_edge=False, header_style="bold")
    table.add_column("ms", no_wrap=True)
    columns = ("mean", *(name for name, _ in REPORTED), "max")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for key, name in (("ttft_ms", "first token"), ("itl_ms", "between tokens"), ("e2e_ms", "whole answer")):
        row = report[key]
        table.add_row(name, *("-" if row[column] is None else f"{row[column]:,.2f}" for column in columns))
    console.print(table)
