"""`baseline_metrics.json`: what one machine measured once, for trends and for the limits of later runs on it.

It holds for the machine whose fingerprint it carries and says nothing about another: there the gate takes each job's
spread from the run's own base, and no trend is shown. `bench_run.py --aa` records it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

VERSION = 1


class BaselineError(Exception):
    """A baseline that cannot be read; the text is one line that names the file."""


@dataclass(frozen=True)
class Baseline:
    """A recorded run of a revision against itself."""

    fingerprint: Mapping[str, object]
    revision: str
    load: float
    """Runnable processes a processor when it was recorded."""
    rounds: int
    median_cost: Mapping[str, float] = field(default_factory=dict)
    """By job: seconds or bytes a unit of work."""
    aa_spread: Mapping[str, float] = field(default_factory=dict)
    """By job: how far the ratio of a revision with itself was from 1."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """By figure, in the figure's unit."""


def record(
    path: Path,
    costs: Mapping[str, Mapping[str, list[float]]],
    figures: Mapping[str, float],
    *,
    fingerprint: Mapping[str, object],
    revision: str,
    load: float,
    rounds: int,
) -> Baseline:
    """Write the baseline of an A/A run, whole or not at all."""
    baseline = Baseline(
        fingerprint,
        revision,
        load,
        rounds,
        {job: median(sides["head"]) for job, sides in costs.items()},
        {job: abs(median(sides["head"]) / median(sides["base"]) - 1) for job, sides in costs.items()},
        figures,
    )
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps({"version": VERSION} | asdict(baseline), indent=2) + "\n")
    partial.replace(path)
    return baseline


def read(path: Path) -> Baseline | None:
    """The recorded baseline, None if there is none. Raises BaselineError when the file is damaged."""
    try:
        document: dict[str, Any] = json.loads(path.read_text())
        version = document.pop("version")
        if version != VERSION:
            raise BaselineError(f"{path}: version {version}, this reads {VERSION}; record it again with --aa")
        return Baseline(**document)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaselineError(f"{path}: damaged ({type(error).__name__}: {error}); record it again with --aa") from None


def explain(baseline: Baseline | None, fingerprint: Mapping[str, object]) -> tuple[Baseline | None, str]:
    """`(baseline or None, what to tell)`: a baseline of another machine is not used."""
    if baseline is None:
        return None, "no baseline is recorded (bench_run.py --aa): limits from this run's own base, no trend"
    differing = [
        f"{name} {baseline.fingerprint.get(name)!r}, here {fingerprint.get(name)!r}"
        for name in sorted(set(baseline.fingerprint) | set(fingerprint))
        if baseline.fingerprint.get(name) != fingerprint.get(name)
    ]
    if differing:
        return None, f"the baseline is of another machine ({'; '.join(differing)}): no trend and no limits from it"
    return baseline, f"baseline of {baseline.revision[:12]}, recorded at load {baseline.load:.2f} a processor"
