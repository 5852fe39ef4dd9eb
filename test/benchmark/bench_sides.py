"""Takes the samples of the gate: base and head run the same jobs alternately, on the same kind of index core."""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import bench_gate
import click

JOBS_SCRIPT = Path(__file__).resolve().parent / "bench_jobs.py"
JOB_TIMEOUT_S = 300


class JobError(Exception):
    """A job could not be run. The message is one line."""


@dataclass(frozen=True)
class Side:
    """One side of the comparison: the interpreter with its packages, the kind of core, and the planted share."""

    python: Path
    core: str = "auto"
    plant: float = 0.0

    def run(self, job: str) -> float:
        """Run a job and return its cost.

        Raises:
            JobError: the job could not be run.
        """
        return float(self._call(job)["cost"])

    def read_core(self) -> str:
        """Return the kind of core of this side.

        Raises:
            JobError: the side has no index core.
        """
        return str(self._call("--core")["core"])

    def _call(self, argument: str) -> dict[str, str]:
        environment = os.environ | {"KVSYNC_BENCH_PLANT": str(self.plant), "KVSYNC_BENCH_CORE": self.core}
        if "PYTHONPATH" in environment:  # relative to the directory in which the run was started
            parts = environment["PYTHONPATH"].split(os.pathsep)
            environment["PYTHONPATH"] = os.pathsep.join(str(Path(part).absolute()) for part in parts if part)
        try:
            done = subprocess.run(
                [self.python, JOBS_SCRIPT, argument],
                capture_output=True,
                text=True,
                env=environment,
                timeout=JOB_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise JobError(f"{argument}: {error}") from None
        if done.returncode:
            raise JobError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
        try:
            answer: dict[str, str] = json.loads(done.stdout)
        except ValueError:
            raise JobError(f"unreadable answer {done.stdout[:100]!r}") from None
        return answer


def choose_core(head: Side, base: Side | None, asked: str) -> tuple[str, str]:
    """Return `(core, remark)`, where `core` is a kind of core that both sides have.

    Raises:
        click.ClickException: a side has no index core, or the native core was asked for and is missing.
    """
    try:
        found = {"head": head.read_core()} | ({"base": base.read_core()} if base else {})
    except JobError as error:
        raise click.ClickException(f"no index core: {error}") from None
    if asked == "native" and found["head"] != "native":
        raise click.ClickException("--core native: the native core is not installed here")
    core = "python" if asked == "python" or "python" in found.values() else "native"
    remark = ""
    if asked != "python" and found["head"] == "python":
        remark = "the native core is not installed: the pure-Python core is measured, on a tenth of the work"
    elif asked != "python" and core == "python":
        remark = "the base has no native core: both sides are compared on the pure-Python core"
    return core, remark


@dataclass
class Samples:
    """The costs of each side by job, and why a side has none."""

    costs: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    """The jobs that the base cannot run, with the reason."""
    broken: dict[str, str] = field(default_factory=dict)
    """The jobs that the head cannot run, which fails the run."""

    def add(self, other: "Samples") -> None:
        """Add the jobs of another object."""
        self.costs |= other.costs
        self.missing |= other.missing
        self.broken |= other.broken


def take_samples(
    jobs: list[str], base: Side | None, head: Side, rounds: int, progress: Callable[[str], None] = lambda _: None
) -> Samples:
    """Run every job in the order A B B A.

    `progress` is called with the name of the job before each of the `2 * rounds` turns.
    """
    samples = Samples()
    for job in jobs:
        costs: dict[str, list[float]] = {}
        sides = {}
        for name, side in (("base", base), ("head", head)):
            if side is None:
                continue
            try:
                side.run(job)  # warms up the file cache and bytecode, and shows whether the job runs
                sides[name], costs[name] = side, []
            except JobError as error:
                (samples.missing if name == "base" else samples.broken)[job] = str(error)
        for turn in bench_gate.interleaving(rounds):
            progress(job)
            if turn in sides and "head" in sides:
                try:
                    costs[turn].append(sides[turn].run(job))
                except JobError as error:
                    samples.broken[job] = f"{turn}: {error}"
                    sides.clear()
        if job not in samples.broken:
            samples.costs[job] = costs
    return samples
