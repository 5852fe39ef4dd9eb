"""Decides whether a whole run passed, with the reasons."""

from collections.abc import Sequence
from typing import Any

from bench_figures import Measured
from bench_gate import Comparison
from bench_sides import Samples


def judge(
    mode: str,
    comparisons: Sequence[Comparison],
    samples: Samples,
    measured: Sequence[Measured],
    problems: Sequence[str],
) -> dict[str, Any]:
    """Return `{"passed", "text", "reasons"}`.

    A run fails because of a job that costs too much, a job that the head cannot run, a group of figures that failed, or
    one of the `problems`. It does not fail because of a figure that misses its target or a job that the base does not
    have. In a canary run, each job must fail.
    """
    failed = [one for one in comparisons if one.failed]
    if mode == "canary":
        missed = [one.name for one in comparisons if not one.failed]
        reasons = [f"canary missed in {', '.join(missed)}"] if missed else []
        what = f"the canary was detected in {len(failed)} of {len(comparisons)} jobs"
    else:
        reasons = [
            f"{one.name} costs {one.ratio:.2f} of the base ({one.low:.2f} … {one.high:.2f}, limit {one.limit:.2f})"
            for one in failed
        ]
        against = "itself" if mode == "A/A" else "the base"
        missing = f"; {len(samples.missing)} not in the base" if samples.missing else ""
        what = f"{len(comparisons)} jobs compared with {against}" if comparisons else "no job compared with a base"
        what += missing
    reasons += [f"{job} could not be run: {why}" for job, why in samples.broken.items()]
    reasons += [f"{one.title}: {one.problem}" for one in measured if one.problem]
    reasons = [*problems, *reasons]
    figures = sum(len(one.figures) for one in measured)
    text = f"{'failed' if reasons else 'passed'}: {what}; {figures} figures"
    return {"passed": not reasons, "text": text, "reasons": reasons}
