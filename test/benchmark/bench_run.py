"""`make test-kv-sync-benchmark`: time the jobs, compare with a base revision, report for people and machines.

    bench_run.py [--base REV] [--rounds 10] [--only JOB ...] [--out out/benchmark]
    bench_run.py --aa            the head against itself: the spread of each job, kept for the limits of later runs
    bench_run.py --canary        the head against itself with a fifth more work planted: must fail

Exit status: 0 nothing is slower, 1 something is (or the canary was missed), 2 the arguments or the set-up are wrong.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import bench_gate
import bench_jobs
import bench_report
import click
from rich.console import Console
from rich.progress import Progress

ROOT = Path(__file__).resolve().parent.parent.parent
BASELINE = Path(__file__).resolve().parent / "baseline_metrics.json"
CANARY_PLANT = 0.2
JOB_TIMEOUT_S = 300


@dataclass(frozen=True)
class Side:
    """One side of the comparison: the interpreter that has its packages, and what is planted in it."""

    python: Path
    plant: float = 0.0

    def run(self, job: str) -> float:
        """The job's cost. Raises click.ClickException with the last line the job printed."""
        environment = os.environ | {"KVSYNC_BENCH_PLANT": str(self.plant)}
        command = [str(self.python), str(Path(bench_jobs.__file__)), job]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, timeout=JOB_TIMEOUT_S, check=True
            )
        except subprocess.CalledProcessError as error:
            last = (error.stderr.strip().splitlines() or ["no output"])[-1]
            raise click.ClickException(f"job {job} failed with {self.python}: {last}") from error
        cost: float = json.loads(done.stdout)["cost"]
        return cost


def git(*arguments: str) -> str:
    """The output of a git command in this checkout. Raises click.ClickException with git's last line."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"git {' '.join(arguments)}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    return done.stdout.strip()


def check_out_base(revision: str, out: Path) -> Path:
    """A worktree of `revision` with an environment of its own; returns its interpreter."""
    commit = git("rev-parse", "--verify", f"{revision}^{{commit}}")
    folder = out / f"base-{commit[:12]}"
    if not folder.exists():
        git("worktree", "add", "--detach", "--force", str(folder), commit)
    done = subprocess.run([folder / "hack/setup.sh"], check=False)
    if done.returncode:
        raise click.ClickException(f"set-up of the base {revision} failed")
    return folder / ".venv/bin/python"


def take_samples(
    jobs: list[str], base: Side, head: Side, rounds: int, console: Console
) -> dict[str, dict[str, list[float]]]:
    """`{job: {"base": costs, "head": costs}}`, interleaved A B B A; a job the base cannot run has no base costs."""
    samples: dict[str, dict[str, list[float]]] = {}
    order = bench_gate.interleaving(rounds)
    with Progress(console=console) as progress:
        bar = progress.add_task("jobs", total=len(jobs) * len(order))
        for job in jobs:
            sides = {"base": base, "head": head}
            try:
                base.run(job)  # warm-up, and whether the base knows this job
            except click.ClickException:
                del sides["base"]
            costs: dict[str, list[float]] = {side: [] for side in sides}
            for side in order:
                progress.update(bar, description=job, advance=1)
                if side in sides:
                    costs[side].append(sides[side].run(job))
            samples[job] = costs
    return samples


def read_spreads(fingerprint: dict[str, object]) -> dict[str, float]:
    """The A/A spreads recorded on this kind of machine; none from another."""
    if not BASELINE.exists():
        return {}
    baseline = json.loads(BASELINE.read_text())
    spreads: dict[str, float] = baseline["aa_spread"] if baseline["fingerprint"] == fingerprint else {}
    return spreads


def write_baseline(samples: dict[str, dict[str, list[float]]], fingerprint: dict[str, object]) -> None:
    """Record the head's medians (for trends) and the A/A spreads (for limits)."""
    document = {
        "fingerprint": fingerprint,
        "revision": git("rev-parse", "HEAD"),
        "median_cost": {job: bench_report.median(costs["head"]) for job, costs in samples.items()},
        "aa_spread": {
            job: abs(bench_report.median(costs["head"]) / bench_report.median(costs["base"]) - 1)
            for job, costs in samples.items()
        },
    }
    BASELINE.write_text(json.dumps(document, indent=2) + "\n")


@click.command(help="Time the jobs and compare with a base revision.")
@click.option("--base", "base_revision", default="HEAD~1", show_default=True, help="The revision to compare with.")
@click.option("--rounds", default=bench_gate.MINIMUM_ROUNDS, show_default=True, help="Runs of each side; even.")
@click.option("--only", multiple=True, type=click.Choice(list(bench_jobs.JOBS)), help="Only these jobs.")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "out/benchmark", help="Where reports go.")
@click.option("--aa", is_flag=True, help="Compare the head with itself and record the spread.")
@click.option("--canary", is_flag=True, help="Plant a fifth more work in the head; the gate must fail it.")
@click.option("--seed", default=1, show_default=True, help="Of the bootstrap.")
def main(base_revision: str, rounds: int, only: tuple[str, ...], out: Path, aa: bool, canary: bool, seed: int) -> None:
    """Run, report, and exit with the verdict."""
    console = Console()
    jobs = list(only or bench_jobs.JOBS)
    try:
        bench_gate.interleaving(rounds)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    head = Side(Path(sys.executable), plant=CANARY_PLANT if canary else 0.0)
    base = Side(Path(sys.executable) if aa or canary else check_out_base(base_revision, out))
    fingerprint = bench_report.fingerprint()
    spreads = read_spreads(fingerprint)
    samples = take_samples(jobs, base, head, rounds, console)
    comparisons = [
        bench_gate.compare(job, costs["base"], costs["head"], seed, spreads.get(job))
        for job, costs in samples.items()
        if "base" in costs
    ]
    title = "canary" if canary else "A/A" if aa else f"{base_revision} → HEAD"
    document = {
        "title": title,
        "fingerprint": fingerprint,
        "base": git("rev-parse", "HEAD" if aa or canary else base_revision),
        "head": git("rev-parse", "HEAD"),
        "rounds": rounds,
        "comparisons": [asdict(comparison) | {"failed": comparison.failed} for comparison in comparisons],
        "samples": samples,
        "units": {job: bench_jobs.JOBS[job][0] for job in jobs},
    }
    bench_report.write(document, out)
    console.print(bench_report.table(document))
    console.print(f"report: {out / 'report.html'}, {out / 'report.json'}")
    if aa:
        write_baseline(samples, fingerprint)
    missed = [comparison.name for comparison in comparisons if comparison.failed != canary]
    if missed:
        console.print(f"{'canary missed in' if canary else 'slower than allowed'}: {', '.join(missed)}", style="red")
        sys.exit(1)


if __name__ == "__main__":
    main()
