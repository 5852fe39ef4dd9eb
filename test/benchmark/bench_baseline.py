"""Reads and writes `baseline_metrics.json`, the recorded measurements of one machine.

The baseline gives trends, and limits for later runs on the machine whose fingerprint it carries. On another machine no
trend is shown, and the gate takes the spread of each job from the samples of its own base. `bench_run.py --aa` records
it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

VERSION = 1


class BaselineError(Exception):
    """A baseline cannot be read. The message is one line and names the file."""


@dataclass(frozen=True)
class Baseline:
    """The recorded run of a revision against itself."""

    fingerprint: Mapping[str, object]
    revision: str
    load: float
    """Runnable processes per processor at the time of the recording."""
    rounds: int
    median_cost: Mapping[str, float] = field(default_factory=dict)
    """By job: seconds or bytes per unit of work."""
    aa_spread: Mapping[str, float] = field(default_factory=dict)
    """By job: the distance from 1 of the ratio of the revision to itself."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """By figure, in the unit of the figure."""


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
    """Write the baseline of an A/A run, completely or not at all, and return it."""
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
    """Return the recorded baseline, or None if there is none.

    Raises:
        BaselineError: the file is damaged or has another version.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_text())
        version = document.pop("version")
        if version != VERSION:
            raise BaselineError(f"{path}: version {version} instead of {VERSION}; record it again with --aa")
        return Baseline(**document)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaselineError(f"{path}: damaged ({type(error).__name__}: {error}); record it again with --aa") from None


def explain(baseline: Baseline | None, fingerprint: Mapping[str, object]) -> tuple[Baseline | None, str]:
    """Return the baseline if it is of this machine, and a message that says whether it is used and why."""
    if baseline is None:
        return (
            None,
            "no baseline is recorded (bench_run.py --aa): limits come from this run's own base, without a trend",
        )
    differing = [
        f"{name} {baseline.fingerprint.get(name)!r}, here {fingerprint.get(name)!r}"
        for name in sorted(set(baseline.fingerprint) | set(fingerprint))
        if baseline.fingerprint.get(name) != fingerprint.get(name)
    ]
    if differing:
        return None, f"the baseline is of another machine ({'; '.join(differing)}): it gives no trend and no limits"
    return baseline, f"baseline of {baseline.revision[:12]}, recorded at load {baseline.load:.2f} per processor"
