"""The charts of a demo's report."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kvsync.demo.routing import AWAY, HELD, IN_TURN, NEW, NONE, PART, REASONS
from kvsync.demo.table import iterate_legs
from kvsync_indexer.sync import TRUSTED
from kvsync_pages import Band, BandRow, Bands, BarRow, Bars, Lines, Mark, Segment, Series
from kvsync_pages.scales import percent
from kvsync_pages.tones import BAD, GOOD, INK, KV_KILLED, POLICIES, WARN, tone_of

PERCENTILES = ("p50", "p95", "p99")
REASON_TONES = {HELD: "s1", PART: "s5", NONE: "s2", NEW: "s3", IN_TURN: "s4", AWAY: "s6"}
STATE_TONES = {"live": "s1", "connecting": "s2", "restart": "s5", "resyncing": "s3", "replaying": "s4"}
OTHER_STATE = "s6"
X_TITLE = "seconds since the replay began"

Report = Mapping[str, Any]


def _tone(name: str) -> str:
    return POLICIES.get(name, KV_KILLED)


def draw_hits(report: Report) -> Lines:
    """The hit ratio of the untouched legs, of the leg with the kill, and of an unlimited cache."""
    legs = dict(iterate_legs(report))
    longest = max(legs.values(), key=lambda leg: leg["duration_s"])
    return Lines(
        "Hit ratio over time",
        [
            *(Series(name, leg["hit_curve"], _tone(name)) for name, leg in legs.items()),
            Series("unlimited cache", longest["ideal_curve"], INK, 1),
        ],
        "Share of all prompt tokens so far that a prefix cache served, as reported by the engines.",
        X_TITLE,
        "hit ratio so far",
        percent,
        kill_marks(report),
    )


def draw_ttft(report: Report) -> Bars:
    """The times to the first token, by percentile and leg."""
    groups = []
    for key in PERCENTILES:
        rows = []
        for name, leg in iterate_legs(report):
            value = leg["ttft_ms"][key]
            segments = [] if value is None else [Segment(value, name, _tone(name))]
            rows.append(BarRow(name, segments, "-" if value is None else f"{value:,.0f} ms"))
        groups.append((key, rows))
    return Bars(
        "Time to first token",
        groups,
        "From sending a request to receiving its first token, measured by the client at the speed of the replay.",
    )


def kill_marks(report: Report) -> list[Mark]:
    """The moments of the leg with the kill: killed, noticed, started again, trusted again."""
    restart = report["restart"]
    if not restart["performed"]:
        return []
    killed, started = restart["killed_at_s"], restart["started_at_s"]
    marks = [Mark(killed, "kill -9", BAD)]
    if restart["detected_s"] is not None:
        marks.append(Mark(killed + restart["detected_s"], f"noticed after {restart['detected_s']:.2f} s", WARN))
    if started is not None and restart["live_s"] is not None:
        marks.append(Mark(started + restart["live_s"], "trusted again", GOOD))
    return marks


def draw_trust(report: Report) -> Bands:
    """The state of each engine in the leg with the kill."""
    rows = [
        BandRow(name, list(_bands(curve["at_s"], curve["state"])))
        for name, curve in report["restart"]["leg"]["publishers"].items()
    ]
    return Bands(
        "Trust state of each engine",
        rows,
        "The index matches an engine's blocks only while the engine is live.",
        X_TITLE,
        kill_marks(report),
    )


def _bands(times: Sequence[float], states: Sequence[str]) -> Iterator[Band]:
    """Join samples of the same state; each state lasts until the sample that shows the next."""
    begin = 0.0
    for number, state in enumerate(states):
        last = number == len(states) - 1
        if last or states[number + 1] != state:
            end = times[number] if last else times[number + 1]
            yield Band(begin, end, state, STATE_TONES.get(state, OTHER_STATE))
            begin = end


def draw_blocks(report: Report) -> Lines:
    """The blocks of each engine that the index trusts, in the leg with the kill or in the last leg."""
    name, leg = list(iterate_legs(report))[-1]
    series = [
        Series(publisher, list(_trusted(curve)), tone_of(number) if len(leg["publishers"]) <= 8 else "")
        for number, (publisher, curve) in enumerate(leg["publishers"].items())
    ]
    text = f"Blocks that the index would name in an answer, in the leg {name}. Those of a dead process count as none."
    return Lines("Trusted blocks", series, text, X_TITLE, "blocks", marks=kill_marks(report))


def _trusted(curve: Mapping[str, Sequence[Any]]) -> Iterator[tuple[float, float]]:
    """Points of a curve that falls and rises at once when the trust changes."""
    before: float | None = None
    trusted_before = True
    for at, blocks, state in zip(curve["at_s"], curve["blocks"], curve["state"], strict=True):
        trusted = state in TRUSTED
        value = blocks if trusted else 0
        if before is not None and trusted is not trusted_before:
            yield at, before
        yield at, value
        before, trusted_before = value, trusted


def draw_routing(report: Report) -> Bars:
    """The requests of each engine, by the reason why it was chosen."""
    groups = [
        (
            name,
            [
                BarRow(
                    engine,
                    [Segment(counts[reason], reason, REASON_TONES[reason]) for reason in REASONS if reason in counts],
                    f"{sum(counts.values()):,}",
                )
                for engine, counts in leg["by_reason"].items()
            ],
        )
        for name, leg in iterate_legs(report)
    ]
    return Bars(
        "Who was chosen, and why",
        groups,
        "Requests per engine, by what it held of the prefix that the index could have known.",
        legend=True,
    )


def draw_lag(report: Report) -> Lines:
    """The age of the events when they arrived at the index."""
    legs = list(iterate_legs(report))
    series = [Series(name, list(_highest_lag(leg["publishers"])), _tone(name)) for name, leg in legs]
    text = " ".join(
        f"{name}: an event could be matched {_ms(lag['p50'])} after it was made at p50, and {_ms(lag['p99'])} at p99."
        for name, lag in ((name, leg["event_lag_ms"]) for name, leg in legs)
    )
    return Lines("Event lag", series, text, X_TITLE, "milliseconds, slowest engine of each sample")


def _highest_lag(publishers: Mapping[str, Mapping[str, Sequence[Any]]]) -> Iterator[tuple[float, float]]:
    highest: dict[float, float] = {}
    for curve in publishers.values():
        for at, lag_ms in zip(curve["at_s"], curve["lag_ms"], strict=True):
            if lag_ms is not None:
                highest[at] = max(highest.get(at, 0.0), lag_ms)
    yield from sorted(highest.items())


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"
