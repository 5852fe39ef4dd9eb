"""`kvsync plan`."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from kvsync.plan.objective import Limit, make_rows, parse_duration_ms
from kvsync.plan.outcome import LATENCIES, PERCENTILES, Outcome, Task, Work, combine, run_task
from kvsync.plan.report import answer, build_report
from kvsync.plan.sweep import Configuration, Fixed, Sweep
from kvsync.report.files import write_whole
from kvsync_router.decisions.policies import DEFAULT_DECODE_WEIGHT, DEFAULT_PREFILL_WEIGHT, POLICY_NAMES
from kvsync_workload.arrivals import Arrivals
from kvsync_workload.campaigns import Executor, InProcess, Processes, Ray
from kvsync_workload.reading import read_workload
from kvsync_workload.synthetic import make_trace, read_synthetic
from kvsync_workload.trace import TraceRequest

Value = TypeVar("Value")
POSITIVE = click.FloatRange(min=0, min_open=True)


class Several(click.ParamType[Any]):
    """Values separated by commas, each of which another type reads."""

    def __init__(self, of: click.ParamType[Any]) -> None:
        self._of = of
        self.name = "list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Sequence[Any]:  # noqa: ANN401
        """Return the values without repetitions."""
        if not isinstance(value, str):
            return tuple(value)
        return tuple(dict.fromkeys(self._of.convert(part.strip(), param, ctx) for part in value.split(",")))


class Duration(click.ParamType[Any]):
    """A duration such as `500ms`, in milliseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401
        """Return milliseconds."""
        try:
            return value if isinstance(value, float) else parse_duration_ms(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _several(name: str, of: click.ParamType[Any], default: str, text: str) -> Callable[[Any], Any]:
    return click.option(name, type=Several(of), default=default, show_default=True, metavar="A,B,…", help=text)


def _limits(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for each latency and percentile."""
    texts = {"ttft_ms": "time to first token", "itl_ms": "time between tokens", "e2e_ms": "time of the whole answer"}
    for latency in reversed(LATENCIES):
        for percentile in reversed(PERCENTILES):
            name = f"--{latency.removesuffix('_ms')}-{percentile}"
            shown = percentile == "p95"
            text = f"Objective: {percentile} of the {texts[latency]}, at most (also p50, p90, p99)."
            function = click.option(name, type=Duration(), metavar="TIME", help=text, hidden=not shown)(function)
    return function


@click.command("plan")
@click.argument("trace", required=False, type=click.Path(path_type=Path))
@click.option("--synthetic", type=click.Path(path_type=Path), help="YAML workload instead of a trace.")
@click.option("--requests", type=click.IntRange(min=1), help="Use only the first requests of the file.")
@click.option("--speed", type=POSITIVE, default=1.0, show_default=True, help="How many times faster than recorded.")
@click.option("--rate", type=POSITIVE, help="Requests (or sessions) per second, instead of the times in the trace.")
@click.option("--poisson", type=POSITIVE, help="The same, as a Poisson process.")
@_several("--policies", click.Choice(POLICY_NAMES), "round_robin,kv", "Routing policies.")
@_several("--engines", click.IntRange(1, 1024), "2,4,8", "Numbers of engines.")
@_several("--blocks", click.IntRange(2), "16384", "Blocks per engine.")
@_several("--host-blocks", click.IntRange(0), "0", "Blocks of the host tier, per engine.")
@_several("--disk-blocks", click.IntRange(0), "0", "Blocks of the disk tier, per engine.")
@_several("--prefill-weights", click.FloatRange(min=0), str(DEFAULT_PREFILL_WEIGHT), "Prefill weights of kv.")
@_several("--decode-weights", click.FloatRange(min=0), str(DEFAULT_DECODE_WEIGHT), "Decode weights of kv.")
@_several("--seeds", click.IntRange(0, 2**31), "0", "Seeds; each configuration is replayed once per seed.")
@click.option("--block-size", type=click.IntRange(1, 512), default=16, show_default=True, help="Tokens per block.")
@click.option(
    "--batched-tokens", type=click.IntRange(1), default=8192, show_default=True, help="Token budget per step."
)
@click.option(
    "--latency",
    default="quadratic",
    show_default=True,
    help="Latency profile, formula, or file of `kvsync calibrate`.",
)
@_limits
@click.option("--engine-cost", type=POSITIVE, default=1.0, show_default=True, help="Cost of one engine for one hour.")
@click.option("--jobs", type=click.IntRange(1), help="Processes on this machine [default: one per CPU].")
@click.option("--ray", metavar="ADDRESS", help="Run on this Ray cluster (needs the extra kvsync[ray]).")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the report here.")
@click.option("--html", "html_file", type=click.Path(path_type=Path), help="Write the page here.")
def command(**flags: Any) -> None:  # noqa: ANN401
    """Replay TRACE offline under every combination of the given values, and say what meets an objective at what cost.

    Options named "A,B,…" take several values. Equal seeds give equal reports, byte for byte, wherever they run.
    """
    arrivals = _arrivals(flags)
    source, requests = _requests(flags)
    sweep = Sweep(
        flags["policies"],
        flags["engines"],
        flags["blocks"],
        flags["host_blocks"],
        flags["disk_blocks"],
        flags["prefill_weights"],
        flags["decode_weights"],
        flags["seeds"],
    )
    fixed = Fixed(flags["block_size"], flags["batched_tokens"], flags["latency"])
    limits = [
        Limit(latency, percentile, flags[f"{latency.removesuffix('_ms')}_{percentile}"])
        for latency in LATENCIES
        for percentile in PERCENTILES
        if flags[f"{latency.removesuffix('_ms')}_{percentile}"] is not None
    ]
    outcomes = _run(_executor(flags), Work(requests, arrivals, fixed), sweep)
    rows = make_rows(outcomes, limits, flags["engine_cost"])
    report = build_report(source, sweep, fixed, arrivals, limits, flags["engine_cost"], rows)
    _write(report, flags["json_file"], flags["html_file"])
    _print(report)
    sys.exit(1 if limits and not report["smallest"] else 0)


def _arrivals(flags: dict[str, Any]) -> Arrivals:
    if flags["rate"] is not None and flags["poisson"] is not None:
        raise click.UsageError("--rate and --poisson exclude each other")
    if flags["rate"] is not None:
        return Arrivals("rate", rate=flags["rate"])
    if flags["poisson"] is not None:
        return Arrivals("poisson", rate=flags["poisson"])
    return Arrivals("trace", speed=flags["speed"])


def _requests(flags: dict[str, Any]) -> tuple[str, Sequence[TraceRequest]]:
    if (flags["trace"] is None) == (flags["synthetic"] is None):
        raise click.UsageError("give a trace or --synthetic FILE")
    if flags["trace"] is not None:
        return str(flags["trace"]), read_workload(flags["trace"], flags["requests"]).requests
    requests = make_trace(read_synthetic(flags["synthetic"]), flags["seeds"][0])
    return str(flags["synthetic"]), requests[: flags["requests"]]


def _executor(flags: dict[str, Any]) -> Executor:
    if flags["ray"] is not None:
        if flags["jobs"] is not None:
            raise click.UsageError("--jobs and --ray exclude each other")
        return Ray(flags["ray"])
    return InProcess() if flags["jobs"] == 1 else Processes(flags["jobs"])


def _run(executor: Executor, work: Work, sweep: Sweep) -> dict[Configuration, Outcome]:
    configurations = sweep.configurations()
    tasks = [Task(configuration, seed) for configuration in configurations for seed in sweep.seeds]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        shown = progress.add_task(f"{len(tasks)} replays {executor.describe()}", total=len(tasks))
        results = executor.run(run_task, work, tasks, lambda done: progress.update(shown, completed=done))
    seeds = len(sweep.seeds)
    return {
        configuration: combine(results[place * seeds : (place + 1) * seeds])
        for place, configuration in enumerate(configurations)
    }


def _write(report: dict[str, Any], json_file: Path | None, html_file: Path | None) -> None:
    if json_file is not None:
        write_whole(json_file, json.dumps(report, indent=2) + "\n")
    if html_file is not None:
        from kvsync.plan.page import build_page
        from kvsync_pages import render

        write_whole(html_file, render(build_page(report)))


def _print(report: dict[str, Any]) -> None:
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=140)
    front = set(report["front"])
    table = Table(box=None, padding=(0, 2), pad_edge=False, header_style="bold")
    for column in ("", "policy", "weights"):
        table.add_column(column, no_wrap=True)
    for column in ("engines", "blocks", "host", "disk", "hit", "ttft p50", "ttft p95", "itl p95", "req/s", "cost/Mtok"):
        table.add_column(column, justify="right", no_wrap=True)
    for place, row in enumerate(report["configurations"]):
        mark = ("*" if place in front else " ") + ("+" if report["objective"] and row["meets_objective"] else " ")
        weights = f"{row['prefill_weight']:g} {row['decode_weight']:g}" if "prefill_weight" in row else ""
        table.add_row(
            mark,
            row["policy"],
            weights,
            str(row["engines"]),
            f"{row['blocks']:,}",
            f"{row['host_blocks']:,}",
            f"{row['disk_blocks']:,}",
            f"{row['hit_ratio']:.1%}",
            *(_ms(row[latency][name]) for latency, name in (("ttft_ms", "p50"), ("ttft_ms", "p95"), ("itl_ms", "p95"))),
            f"{row['requests_per_s']:.2f}",
            f"{row['cost_per_million_tokens']:.4g}",
        )
    console.print(table)
    console.print(
        "* cheapest for its ttft p95 (Pareto front)" + ("   + meets the objective" if report["objective"] else "")
    )
    for line in answer(report):
        console.print(line, markup=False)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f} ms"
