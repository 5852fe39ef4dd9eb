"""The demo's last words on the terminal."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kvsync.demo.report import Verdict
from kvsync.report.order import order_note


def predicted(totals: dict[str, int]) -> str:
    """How the index's predictions did, in a sentence."""
    wrong = max(totals["predicted_tokens"], totals["cached_tokens"], 1)
    return (
        f"of {totals['requests']:,} predictions {totals['exact'] / totals['requests']:.1%} were right to the token; "
        f"{totals['over_tokens'] / wrong:.2%} of tokens promised and not cached, "
        f"{totals['under_tokens'] / wrong:.2%} cached and not promised"
    )


def print_results(console: Console, report: dict[str, Any], verdict: Verdict, out: Path) -> None:
    """A table by policy, the audit, the restart, where the report is."""
    table = Table(box=None, padding=(0, 2), pad_edge=False, header_style="bold")
    table.add_column("policy", no_wrap=True)
    for column in ("hit ratio", "of ideal", "TTFT p50", "p95", "p99", "failed", "again", "differences"):
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
        console.print(f"tokens brought back from the host tier: {found}", highlight=False)
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
