"""Checkers that judge what happened over time: order, matches, ages, departures, sizes, side effects (I5, I8-I12)."""

from collections.abc import Mapping, Sequence

from kvsync_testkit.checks.facts import (
    Answer,
    AppliedBatch,
    Forgotten,
    Holding,
    Row,
    Rows,
    Sample,
    Sighting,
    TrustSample,
    Violation,
)
from kvsync_workload.percentiles import percentile


def check_sequence(history: Sequence[AppliedBatch | Forgotten]) -> list[Violation]:
    """I5: per publisher and epoch the applied sequence rises strictly, unless its blocks were dropped in between."""
    found = []
    latest: dict[str, AppliedBatch] = {}
    for entry in history:
        if isinstance(entry, Forgotten):
            latest.pop(entry.publisher, None)
            continue
        last = latest.get(entry.publisher)
        latest[entry.publisher] = entry
        if last is None:
            continue
        if last.epoch != entry.epoch:
            detail = f"batch {entry.seq} of epoch {entry.epoch} applied on top of blocks of epoch {last.epoch}"
        elif entry.seq <= last.seq:
            detail = f"batch {entry.seq} of epoch {entry.epoch} applied after batch {last.seq}, at {entry.at_s:.3f} s"
        else:
            continue
        found.append(Violation("I5", entry.publisher, detail, (last, entry)))
    return found


def check_prefix_closure(answers: Sequence[Answer], index: Mapping[str, Rows]) -> list[Violation]:
    """I8: a match of k means that the first k blocks are in the index; a longer query never matches less."""
    found = []
    for answer in answers:
        held = {row.key for row in index.get(answer.publisher, {})}
        missing = [at for at, key in enumerate(answer.query[: answer.matched]) if key not in held]
        if answer.matched > len(answer.query):
            found.append(
                Violation("I8", answer.publisher, f"{answer.matched} of {len(answer.query)} blocks matched", (answer,))
            )
        elif missing:
            detail = f"{answer.matched} blocks matched but block {missing[0]} is not in the index"
            gone = Holding(Row(answer.query[missing[0]], "any tier"), (0,), ("index",))
            found.append(Violation("I8", answer.publisher, detail, (answer, gone)))
    for short in answers:
        for long in answers:
            same = short.publisher == long.publisher and short.group_idx == long.group_idx
            if same and long.query[: len(short.query)] == short.query and long.matched < short.matched:
                detail = (
                    f"{len(long.query)} blocks matched {long.matched}, their first {len(short.query)} {short.matched}"
                )
                found.append(Violation("I8", short.publisher, detail, (short, long)))
    return found


def check_staleness(samples: Sequence[TrustSample], stale_after_s: float, slack_s: float = 0.0) -> list[Violation]:
    """I9: whoever was matched had given a sign of life within `stale_after_s` (plus the sampling slack)."""
    silences = [(sample, sample.at_s - sample.heard_s) for sample in samples if sample.matched]
    return [
        Violation("I9", sample.publisher, f"matched at {sample.at_s:.3f} s, last heard {silence:.3f} s ago", (sample,))
        for sample, silence in silences
        if silence > stale_after_s + slack_s
    ]


def check_departure(
    publisher: str, gone_s: float, seen: Sequence[tuple[float, str]], within_s: float
) -> list[Violation]:
    """I10: later than `within_s` after the pod went, nothing of it is seen: no entry, no route, no late frame.

    `seen` are (time in seconds, what), e.g. (12.5, "routed to") or (13.0, "blocks in the index").
    """
    late = [(at, what) for at, what in seen if at > gone_s + within_s]
    return [
        Violation("I10", publisher, f"{what} {at - gone_s:.3f} s after it went", (Sighting(at, publisher, what),))
        for at, what in late[:5]
    ]


def check_bounds(
    samples: Sequence[Sample], limits: Mapping[str, float], growth_per_s: float | None = None
) -> list[Violation]:
    """I11: every named size stays within its limit; with `growth_per_s` its slope over the run as well."""
    found = []
    for name, limit in limits.items():
        series = [sample for sample in samples if sample.name == name]
        if not series:
            found.append(Violation("I11", name, "was never measured"))
            continue
        top = max(series, key=lambda sample: sample.value)
        if top.value > limit:
            found.append(
                Violation("I11", name, f"{top.value:g} at {top.at_s:.3f} s, over the limit of {limit:g}", (top,))
            )
        slope = _slope(series)
        if growth_per_s is not None and slope > growth_per_s:
            found.append(
                Violation("I11", name, f"grows by {slope:g} per second, over {growth_per_s:g}", (series[0], series[-1]))
            )
    return found


def check_non_interference(
    quiet_s: Mapping[str, Sequence[float]],
    during_s: Mapping[str, Sequence[float]],
    factor: float,
    floor_s: float,
    disagreements: Sequence[Violation] = (),
) -> list[Violation]:
    """I12: during a fault the unfaulted publishers keep their 99th percentile and agree with their engines.

    `quiet_s` and `during_s` are event lags in seconds by unfaulted publisher; the percentile may grow by `factor`, and
    anything under `floor_s` counts as unchanged. `disagreements` are what other checkers found for them meanwhile.
    """
    found = [Violation("I12", one.publisher, f"during the fault: {one}", one.evidence) for one in disagreements]
    percentiles = {name: (_p99(quiet_s.get(name, ())), _p99(lags)) for name, lags in during_s.items()}
    found += [
        Violation("I12", name, f"99th percentile of lag {now:.4f} s, {before:.4f} s before the fault")
        for name, (before, now) in percentiles.items()
        if now > max(floor_s, factor * before)
    ]
    missing = sorted(set(quiet_s) - set(during_s))
    return found + [Violation("I12", name, "nothing arrived during the fault") for name in missing]


def check_counts(publisher: str, reported: Mapping[str, int], observed: Mapping[str, int]) -> list[Violation]:
    """C1: what the index reports of a stream, by name of the number, is what was observed."""
    return [
        Violation("C1", publisher, f"{name}: {reported.get(name)} reported, {count} observed")
        for name, count in observed.items()
        if reported.get(name) != count
    ]


def _p99(values: Sequence[float]) -> float:
    return percentile(values, 99) or 0.0


def _slope(series: Sequence[Sample]) -> float:
    """Least squares, in units per second."""
    count = len(series)
    mean_x = sum(sample.at_s for sample in series) / count
    mean_y = sum(sample.value for sample in series) / count
    spread = sum((sample.at_s - mean_x) ** 2 for sample in series)
    if spread == 0:
        return 0.0
    return sum((sample.at_s - mean_x) * (sample.value - mean_y) for sample in series) / spread
