"""Pass or fail of a whole run, and why."""

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
    """`{"passed", "text", "reasons"}`.

    A run fails for a job that costs too much, for one that the head cannot run, for a group of figures that failed, and
    for `problems` of its own; never for a figure that misses what is wanted, nor for what the base does not have. In a
    canary run the jobs must fail, each of them.
    """
    failed = [one for one in comparisons if one.failed]
    if mode == "canary":
        missed = [one.name for one in comparisons if not one.failed]
        reasons = [f"canary missed in {', '.join(missed)}"] if missed else []
        what = f"the canary was seen in {len(failed)} of {len(comparisons)} jobs"
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
