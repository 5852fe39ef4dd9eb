"""Builds the page of a demo's report.

The page is computed from the document of `report.json` alone, so that a stored report can be rendered again.
"""

from collections.abc import Mapping
from typing import Any

from kvsync.demo.drawing import (
    PERCENTILES,
    draw_blocks,
    draw_hits,
    draw_lag,
    draw_routing,
    draw_trust,
    draw_ttft,
)
from kvsync.demo.headline import headline
from kvsync.demo.table import iterate_legs
from kvsync.report.order import order_note
from kvsync_pages import Cell, Commands, Fact, Page, Remark, Section, Table
from kvsync_pages.tones import BAD, GOOD, WARN

Report = Mapping[str, Any]


def build_page(report: Report) -> Page:
    """Build the page from a report as `kvsync.demo.report.build_report` returns it."""
    return Page(
        title="kvsync demo",
        verdict="Every check passed." if report["passed"] else "Failed.",
        tone=GOOD if report["passed"] else BAD,
        subtitle=(
            f"{report['requests']:,} requests of {report['trace'].rsplit('/', 1)[-1]} on {report['engines']} mock "
            f"engines of {report['blocks_per_engine']:,} blocks, seed {report['seed']}."
        ),
        remarks=[
            *(Remark(f"{reason}.", BAD) for reason in report["reasons"]),
            *([Remark(f"{report['note'][:1].upper()}{report['note'][1:]}.", WARN)] if report["note"] else []),
        ],
        headline=headline(report),
        facts=_facts(report),
        sections=[
            Section("The policies side by side", [draw_hits(report), draw_ttft(report), _results(report)]),
            *_kill(report),
            Section("Routing", [draw_routing(report), *_examples(report["restart"])]),
            Section("Delay of the index", [draw_lag(report)]),
            Section("Next", [Commands([(step["purpose"], step["command"]) for step in report["next"]])]),
            Section("Timeline", [_moments(report)]),
        ],
        footer=_footer(report),
    )


def _facts(report: Report) -> list[Fact]:
    legs = dict(iterate_legs(report))
    audits = [leg["audit"] for leg in legs.values()]
    differences = sum(audit["differences"] for audit in audits)
    clean = differences == 0 and not any(audit["failed"] for audit in audits)
    blocks = sum(audit["blocks"] for audit in audits)
    failed = sum(leg["failed"] for leg in legs.values())
    reissued = sum(leg["reissued"] for leg in legs.values())
    facts = [
        Fact(
            "Audit differences",
            str(differences),
            f"{blocks:,} blocks compared with the engines' own tables after {len(legs)} legs",
            GOOD if clean else BAD,
        ),
        Fact("Failed requests", str(failed), f"{reissued} reissued after the kill", BAD if failed else GOOD),
    ]
    restart = report["restart"]
    if restart["performed"] and restart["detected_s"] is not None:
        note = f"{restart['publisher']} was killed; the index rebuilt {restart['blocks_after']:,} blocks"
        tone = GOOD if restart["rebuilt"] else BAD
        facts.append(Fact("Kill noticed after", f"{restart['detected_s']:.2f} s", note, tone))
    if report["host_blocks_per_engine"]:
        brought = sum(leg["tier_hit_tokens"] for leg in legs.values())
        note = f"{report['host_blocks_per_engine']:,} blocks per engine"
        facts.append(Fact("Tokens from the host tier", f"{brought:,}", note))
    asked = [leg["answers"] for leg in legs.values() if leg["answers"]["answers"] and leg["predictions"]["requests"]]
    if asked:
        answers = sum(one["answers"] for one in asked)
        exact = answers - sum(one["wrong"] + one["incomplete"] for one in asked)
        note = f"of {answers:,} answers named what the engine then found, to the token"
        facts.append(Fact("Exact answers", f"{exact / answers:.1%}", note))
    return facts


def _kill(report: Report) -> list[Section]:
    restart = report["restart"]
    if not restart["performed"]:
        return []
    text = (
        f"A leg of its own: {restart['publisher']} is killed with SIGKILL while it holds {restart['blocks_before']:,} "
        "blocks, and started again, empty, at the same address."
    )
    return [Section("One engine is killed", [draw_trust(report), draw_blocks(report)], text)]


def _results(report: Report) -> Table:
    ideal = report["ideal_hit_ratio"]
    rows = [
        [
            name,
            f"{leg['hit_ratio']:.2%}",
            f"{leg['hit_ratio'] / ideal:.0%}" if ideal else "-",
            *(_ms(leg["ttft_ms"][key]) for key in PERCENTILES),
            str(leg["failed"]),
            str(leg["reissued"]),
            str(leg["audit"]["differences"]),
        ]
        for name, leg in iterate_legs(report)
    ]
    latencies = (f"TTFT {key}" for key in PERCENTILES)
    columns = ("leg", "hit ratio", "of ideal", *latencies, "failed", "reissued", "audit differences")
    return Table("Results", columns, rows)


def _examples(restart: Mapping[str, Any]) -> list[Table]:
    if not restart["performed"]:
        return []
    rows = [
        (
            f"{one['sent_s']:.2f} s",
            one["endpoint"],
            f"{one['prompt_tokens']:,}",
            f"{one['known_tokens']:,}",
            "unknown" if one["matched_tokens"] is None else f"{one['matched_tokens']:,}",
            f"{one['cached_tokens']:,}",
            one["reason"],
        )
        for one in restart["examples"]
    ]
    columns = ("sent at", "engine", "prompt tokens", "seen before", "index named", "engine found", "why")
    text = f"Requests with a known prefix around the kill of {restart['publisher']} at {restart['killed_at_s']:.2f} s."
    return [Table("Single decisions", columns, rows, text, texts=("engine", "why"))]


def _moments(report: Report) -> Table:
    rows = [(Cell(name), f"{at_s:.2f} s", text) for name, leg in iterate_legs(report) for at_s, text in leg["moments"]]
    return Table("", ("leg", "time", "event"), rows, texts=("event",))


def _footer(report: Report) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in report["versions"].items() if value)
    order = order_note(report["reordered"])
    return (
        f"Lengths are those of the trace divided by {report['scale']} (one 512-token block of the trace is one "
        f"{report['block_size']}-token engine block); requests arrive {report['speed']:g} times as fast as in the "
        f"trace. {order}{' ' if order else ''}{versions}."
    )


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"
