"""Prints the results of a demo on the terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from kvsync.demo.headline import headline
from kvsync.demo.legs import Leg
from kvsync.report.order import order_note

Report = Mapping[str, Any]


def iterate_legs(report: Report) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the results of each leg, in the order in which they were run."""
    yield from report["policies"].items()
    restart = report["restart"]
    if restart["performed"]:
        yield Leg(restart["policy"], kill=True).name, restart["leg"]


def describe_predictions(totals: Mapping[str, int]) -> str:
    """Describe in a sentence how exact the predictions of the index were."""
    tokens = max(totals["predicted_tokens"], totals["cached_tokens"], 1)
    return (
        f"{totals['exact'] / totals['requests']:.1%} of {totals['requests']:,} predictions were exact; "
        f"{totals['over_tokens'] / tokens:.2%} of the tokens were predicted but not cached, "
        f"{totals['under_tokens'] / tokens:.2%} were cached but not predicted"
    )


def print_results(console: Console, report: Report) -> None:
    """Print a table with one row per leg, the restart and the details, then the verdict and the headline."""
    console.print()
    console.print(_results(report))
    for line in _details(report):
        console.print(line, highlight=False, soft_wrap=True)
    if report["note"]:
        console.print(f"note: {report['note']}", style="yellow", highlight=False, soft_wrap=True)
    for reason in report["reasons"]:
        console.print(f"FAILED: {reason}", style="bold red", highlight=False, soft_wrap=True)
    console.print()
    for fact in headline(report):
        console.print(f"{fact.label}: [bold]{fact.value}[/bold] ({fact.note})", highlight=False, soft_wrap=True)


def print_next_steps(console: Console, report: Report) -> None:
    """Print each command with what it does."""
    console.print("\nNext:")
    for step in report["next"]:
        console.print(f"  {step['purpose']}:", style="dim", highlight=False, soft_wrap=True)
        console.print(f"    {step['command']}", highlight=False, soft_wrap=True, markup=False)


def _results(report: Report) -> Table:
    table = Table(box=None, padding=(0, 2), pad_edge=False, header_style="bold")
    table.add_column("leg", no_wrap=True)
    for column in ("hit ratio", "of ideal", "TTFT p50", "p95", "p99", "failed", "reissued", "differences"):
        table.add_column(column, justify="right", no_wrap=True)
    ideal = report["ideal_hit_ratio"]
    for name, leg in iterate_legs(report):
        ttft = leg["ttft_ms"]
        table.add_row(
            name,
            f"{leg['hit_ratio']:.2%}",
            f"{leg['hit_ratio'] / ideal:.0%}" if ideal else "-",
            *("-" if ttft[key] is None else f"{ttft[key]:.0f} ms" for key in ("p50", "p95", "p99")),
            str(leg["failed"]),
            str(leg["reissued"]),
            str(leg["audit"]["differences"]),
        )
    table.add_row("ideal", f"{ideal:.2%}", "100%", style="dim")
    return table


def _details(report: Report) -> Iterator[str]:
    restart = report["restart"]
    if restart["performed"] and restart["detected_s"] is not None:
        rebuilt = f"rebuilt to {restart['blocks_after']:,} blocks" if restart["rebuilt"] else "not rebuilt"
        yield (
            f"restart of {restart['publisher']}: noticed after {restart['detected_s']:.2f} s "
            f"({restart['detected_as']}), {rebuilt}"
        )
    if report["host_blocks_per_engine"]:
        found = ", ".join(f"{name} {leg['tier_hit_tokens']:,}" for name, leg in iterate_legs(report))
        yield f"tokens loaded from the host tier: {found}"
    for name, leg in iterate_legs(report):
        if leg["predictions"]["requests"]:
            yield f"{name}: {describe_predictions(leg['predictions'])}"
    lag = report["event_lag_ms"]
    if lag["p50"] is not None:
        yield f"event lag: p50 {lag['p50']:.2f} ms, p99 {lag['p99']:.2f} ms"
    if report["reordered"]:
        yield order_note(report["reordered"])
