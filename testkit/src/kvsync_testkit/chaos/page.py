"""`report.html`: the same facts for people. One file without scripts; readable in the dark and on a phone."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

Curve = Sequence[Sequence[float]]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 130, 44, 22
_MARKS = (("injected", "injected"), ("detected", "detected"), ("healed", "healed"), ("recovered", "converged"))

_STYLE = """
:root{--ground:#fff;--ink:#1b1f24;--faint:#6a737d;--line:#d8dee4;--good:#1a7f37;--bad:#c5221f;--skip:#8a6d00;
--affected:#b3541e;--control:#2563a8;--card:#f6f8fa}
@media(prefers-color-scheme:dark){:root{--ground:#0e1116;--ink:#e2e6eb;--faint:#9aa4af;--line:#343b44;--good:#4cc36b;
--bad:#ff7b72;--skip:#d9b340;--affected:#f0955c;--control:#79b8ff;--card:#171b22}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:62rem;background:var(--ground);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;margin:.5rem 0}h2{font-size:1.1rem;margin:0;overflow-wrap:anywhere}
p{margin:.4rem 0}small,.faint{color:var(--faint)}
section{border:1px solid var(--line);border-radius:.5rem;padding:1rem;margin:1rem 0;background:var(--card)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
.passed,.kept,.Confirmed{color:var(--good)}.failed,.violated,.Mismatch{color:var(--bad)}
.skipped,.Inconclusive{color:var(--skip)}.not{color:var(--faint)}
ul.invariants{display:flex;flex-wrap:wrap;gap:.3rem .9rem;list-style:none;padding:0;margin:.5rem 0;font-size:.9rem}
svg{width:100%;height:auto;min-width:28rem}svg text{fill:var(--faint);font-size:11px}
pre{overflow-x:auto;font-size:.8rem;white-space:pre-wrap;overflow-wrap:anywhere;margin:.3rem 0}
summary{cursor:pointer}a{color:var(--control)}
"""


def write_page(document: Mapping[str, Any], path: Path) -> None:
    """Write the page for a document of `report.as_document`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(document))


def render(document: Mapping[str, Any]) -> str:
    """Return the page."""
    faults: Mapping[str, Mapping[str, Any]] = document["faults"]
    ran = [fault for fault in faults.values() if not fault["verdict"].startswith("skipped")]
    skipped = [fault for fault in faults.values() if fault["verdict"].startswith("skipped")]
    counts = ", ".join(f"{count} {name}" for name, count in document["counts"].items())
    note = f" {escape(document['note'])}." if document.get("note") else ""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1"><title>kvsync chaos report</title>',
        f"<style>{_STYLE}</style></head><body><h1>Chaos report: {_verdict(document['verdict'])}</h1>",
        f"<p>{escape(counts)}. Backend {escape(document['backend'])}, seed {document['seed']}, kernel ",
        f"{escape(document['machine']['kernel'])}.{note}</p>",
        '<p class="faint">A fault passes only if an independent probe confirmed that it was in place, the system ',
        "recovered within its bound, and every promised invariant was checked and kept.</p>",
        _overview(ran),
        *(_section(fault) for fault in ran),
        _skipped(skipped),
        "</body></html>",
    ]
    return "".join(parts) + "\n"


def _verdict(text: str) -> str:
    return f'<span class="{escape(text.split("(")[0])}">{escape(text)}</span>'


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} s"


def _overview(faults: Sequence[Mapping[str, Any]]) -> str:
    rows = "".join(
        f'<tr><td><a href="#{escape(one["name"])}">{escape(one["name"])}</a></td><td>{_verdict(one["verdict"])}</td>'
        f'<td class="{escape(one["injection"])}">{escape(one["injection"])}</td>'
        f"<td>{_seconds(one['detected_s'])}</td><td>{_seconds(one['recovered_s'])}</td></tr>"
        for one in faults
    )
    head = "<tr><th>fault</th><th>verdict</th><th>injection</th><th>noticed after</th><th>recovered after</th></tr>"
    return f'<div class="scroll"><table>{head}{rows}</table></div>'


def _section(fault: Mapping[str, Any]) -> str:
    invariants = "".join(
        f'<li class="{escape(state.split()[0])}">{escape(name)} {escape(state)}</li>'
        for name, state in fault["invariants"].items()
    )
    proof = "\n".join(f"{moment}: {detail}" for moment, detail in fault["proof"].items())
    requests = ", ".join(f"{count} {name}" for name, count in fault["requests"].items())
    reason = f'<p class="failed">{escape(fault["reason"])}</p>' if fault["reason"] else ""
    curves, marks = fault["curves"], fault["timeline"]
    charts = "".join(
        f'<p><small>{title}</small></p><div class="scroll">{chart(curves, stem, marks, top)}</div>'
        for stem, title, top in (
            ("lag", "Batches that the index is behind the engine", None),
            ("coverage", "Share of the engine's blocks that the index holds and trusts", 1.0),
        )
        if any(name.startswith(stem) for name in curves)
    )
    return (
        f'<section id="{escape(fault["name"])}"><h2>{escape(fault["name"])}: {_verdict(fault["verdict"])}</h2>'
        f"<p>{escape(fault['breaks'])}. <small>{escape(fault['backend'])}; requests: {escape(requests)}</small></p>"
        f"{reason}{_timeline(marks)}{charts}"
        f'<ul class="invariants">{invariants}</ul>'
        f'<details><summary>Proof of injection: <span class="{escape(fault["injection"])}">{escape(fault["injection"])}'
        f"</span></summary><pre>{escape(proof)}</pre></details></section>"
    )


def _timeline(marks: Mapping[str, float]) -> str:
    said = [f"{label} at {marks[name]:.1f} s" for name, label in _MARKS if marks.get(name, -1.0) >= 0]
    return f"<p><small>{', '.join(said)}</small></p>" if said else ""


def chart(curves: Mapping[str, Curve], stem: str, marks: Mapping[str, float], top: float | None) -> str:
    """Return an SVG of the curves whose names begin with `stem`, with a line at each moment of the timeline."""
    chosen = {name: points for name, points in curves.items() if name.startswith(stem) and points}
    end = max([point[0] for points in chosen.values() for point in points] + [0.1, *marks.values()])
    highest = top or max([point[1] for points in chosen.values() for point in points] + [1.0])

    def x(at: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 8) * at / end

    def y(value: float) -> float:
        return 14 + (_HEIGHT - _BOTTOM - 14) * (1 - min(value, highest) / highest)

    body = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(stem)} over time">']
    if "injected" in marks and "healed" in marks:
        left, right = x(marks["injected"]), x(marks["healed"])
        body.append(
            f'<rect x="{left:.1f}" y="14" width="{max(1.0, right - left):.1f}" height="{_HEIGHT - _BOTTOM - 14}"'
            ' fill="var(--line)" opacity=".5"/>'
        )
    body += [
        f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>' for value in (0.0, highest)
    ]
    body.append(f'<line x1="{_LEFT}" y1="{y(0):.1f}" x2="{_WIDTH - 8}" y2="{y(0):.1f}" stroke="var(--line)"/>')
    body += [
        _mark(x(marks[name]), label, row) for row, (name, label) in enumerate(_MARKS) if marks.get(name, -1.0) >= 0
    ]
    for name, points in sorted(chosen.items()):
        role = "affected" if name.endswith("affected") else "control"
        line = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
        dash = "" if role == "affected" else ' stroke-dasharray="5 3"'
        body.append(
            f'<polyline points="{line}" fill="none" stroke="var(--{role})" stroke-width="2"{dash}>'
            f"<title>{escape(name)}</title></polyline>"
        )
    body.append(f'<text x="{_WIDTH - 8}" y="{_HEIGHT - 6}" text-anchor="end">{end:.0f} s</text>')
    body.append(f'<text x="{_LEFT}" y="{_HEIGHT - 6}">solid: affected engine, dashed: control</text></svg>')
    return "".join(body)


def _mark(at: float, label: str, row: int) -> str:
    anchor, beside = ("end", at - 3) if at > 0.85 * _WIDTH else ("start", at + 3)
    return (
        f'<line x1="{at:.1f}" y1="12" x2="{at:.1f}" y2="{_HEIGHT - _BOTTOM}" stroke="var(--faint)"'
        f' stroke-dasharray="2 3"/>'
        f'<text x="{beside:.1f}" y="{11 + 11 * (row % 2)}" text-anchor="{anchor}">{label}</text>'
    )


def _skipped(faults: Sequence[Mapping[str, Any]]) -> str:
    if not faults:
        return ""
    rows = "".join(f"<tr><td>{escape(one['name'])}</td><td>{escape(one['reason'])}</td></tr>" for one in faults)
    table = f'<div class="scroll"><table><tr><th>fault</th><th>what is missing</th></tr>{rows}</table></div>'
    return f'<section><h2 class="skipped">Skipped for want of a capability</h2>{table}</section>'
