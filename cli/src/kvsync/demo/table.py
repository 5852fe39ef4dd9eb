"""Prints the results of a demo on the terminal."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kvsync.demo.report import Verdict
from kvsync.report.order import order_note


def predicted(totals: dict[str, int]) -> str:
    """Describe in a sentence how exact the predictions of the index were."""
    tokens = max(totals["predicted_tokens"], totals["cached_tokens"], 1)
    return (
        f"{totals['exact'] / totals['requests']:.1%} of {totals['requests']:,} predictions were exact; "
        f"{totals['over_tokens'] / tokens:.2%} of the tokens were predicted but not cached, "
        f"{totals['under_tokens'] / tokens:.2%} were cached but not predicted"
    )


def print_results(console: Console, report: dict[str, Any], verdict: Verdict, out: Path) -> None:
    """Print a table with one row per policy, then the restart, the predictions, the event lag and the verdict."""
    table = Table(box=None, padding=(0, 2), pad_edge=False, header_style="bold")
    table.add_column("policy", no_wrap=True)
    for column in ("hit ratio", "of ideal", "TTFT p50", "p95", "p99", "failed", "reissued", "differences"):
        table.add_column(column, justify="right", no_wrap=True)
    ideal = report["ideal_hit_ratio"]
    for name, policy in report["policies"].items():
        ttft = policy["ttft_ms"]
        table.add_row(
            name,
            f"{policy['hit_ratio']:.2%}",
            f"{policy['hit_ratio'] / ideal:.0%}" if ideal else "-",
            *("-" if ttft[key] is None else f"{ttft[key]:.0f} ms" for key in ("p50", "p95", "p99")),
            str(policy["failed"]),
            str(policy["reissued"]),
            str(policy["audit"]["differences"]),
        )
    table.add_row("ideal", f"{ideal:.2%}", "100%", style="dim")
    console.print()
    console.print(table)
    restart = report["restart"]
    if restart["performed"] and restart["detected_s"] is not None:
        rebuilt = f"rebuilt to {restart['blocks_after']:,} blocks" if restart["rebuilt"] else "not rebuilt"
        console.print(
            f"restart of {restart['publisher']}: noticed after {restart['detected_s']:.2f} s "
            f"({restart['detected_as']}), {rebuilt}",
            highlight=False,
        )
    if report["host_blocks_per_engine"]:
        found = ", ".join(f"{name} {policy['tier_hit_tokens']:,}" for name, policy in report["policies"].items())
        console.print(f"tokens loaded from the host tier: {found}", highlight=False)
    for name, policy in report["policies"].items():
        if policy["predictions"]["requests"]:
            console.print(f"{name}: {predicted(policy['predictions'])}", highlight=False, soft_wrap=True)
    lag = report["event_lag_ms"]
    if lag["p50"] is not None:
        console.print(f"event lag: p50 {lag['p50']:.2f} ms, p99 {lag['p99']:.2f} ms", highlight=False)
    if report["reordered"]:
        console.print(order_note(report["reordered"]), highlight=False, soft_wrap=True)
    for reason in verdict.reasons:
        console.print(f"FAILED: {reason}", style="bold red", highlight=False)
    console.print(f"report: {out / 'report.html'}", highlight=False)
