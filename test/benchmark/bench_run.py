"""Measures this checkout and compares it with a base revision, for `make test-kv-sync-benchmark`.

    bench_run.py [--base REV] [--quick] [--only JOB|GROUP ...] [--out out/benchmark]
    bench_run.py --aa            compares the head with itself, and records the baseline of this machine
    bench_run.py --canary        compares the head with itself with 20 % more work planted; must fail
    bench_run.py --no-gate       measures the figures alone        --no-figures   runs the gate alone

The exit status is 0 if nothing is slower, 1 if something is slower or could not be measured or if the canary was
missed, and 2 for bad arguments.
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import bench_baseline
import bench_environment as place
import bench_gate
import bench_jobs
import bench_page
import bench_report
import click
from bench_figures import Measured, run_group
from bench_groups import GROUPS
from bench_sides import Samples, Side, choose_core, take_samples
from bench_verdict import judge
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

BASELINE = Path(__file__).resolve().parent / "baseline_metrics.json"
PLANT = 0.2
CANARY_JOB = "index_miss"
"""The job with which a run shows that its gate detects 20 % more work. It is the fastest one."""
CANARY_TRIES = 3
"""Each try adds as many samples again, since a short burst of other load is not the noise of the machine."""


class Run:
    """One run: its options, the state of machine and checkout, and the remarks and problems that it collects."""

    def __init__(self, options: dict[str, Any], console: Console) -> None:
        self.options = options
        self.console = console
        self.started = time.monotonic()
        self.head_state = place.read_head()
        self.remarks: list[str] = []
        self.problems: list[str] = []
        self.mode = "A/A" if options["aa"] else "canary" if options["canary"] else "compare"
        names = options["only"] or (*GROUPS, *bench_jobs.JOBS)
        self.jobs = [] if options["no_gate"] else [name for name in bench_jobs.JOBS if name in names]
        without = options["no_figures"] or options["canary"]
        self.groups = [] if without else [group for name, group in GROUPS.items() if name in names]
        self.load = place.read_load()
        if self.load > place.BUSY_LOAD:
            self.remark(
                f"the machine is busy ({self.load:.1f} runnable processes per processor), so that wall-clock figures "
                "include the effect of other processes"
            )

    def remark(self, text: str) -> None:
        """Print a remark and add it to the report."""
        self.remarks.append(text)
        self.console.print(f"note: {text}", style="yellow", markup=False)

    # -- the sides ------------------------------------------------------------------------------------------------

    def prepare(self, out: Path) -> None:
        """Choose the base, the kind of core and the baseline.

        Raises:
            click.ClickException: one of them cannot be used.
        """
        self.base_commit, base = "", None
        plant = self.options["plant"] if self.options["canary"] else 0.0
        head = Side(Path(sys.executable))
        if self.jobs and self.mode != "compare":
            self.base_commit, base = self.head_state.commit, head
        elif self.jobs:
            self.base_commit, why = place.choose_base(self.options["base"], self.head_state)
            if self.base_commit:
                with self.console.status(f"preparing the base {self.base_commit[:12]} ({why})"):
                    base = Side(place.prepare_base(self.base_commit, out))
            else:
                self.remark(f"no base to compare with: {why}")
        self.core, remark = choose_core(head, base, self.options["core"])
        if remark:
            self.remark(remark)
        self.head = Side(head.python, self.core, plant)
        self.base = base and Side(base.python, self.core)
        self.fingerprint = place.read_fingerprint(self.core)
        try:
            recorded = bench_baseline.read(self.options["baseline"])
        except bench_baseline.BaselineError as error:
            raise click.ClickException(str(error)) from None
        self.baseline, said = bench_baseline.explain(recorded, self.fingerprint)
        self.console.print(said, style="dim", markup=False)
        if recorded and not self.baseline:
            self.remarks.append(said)

    # -- measuring ------------------------------------------------------------------------------------------------

    def measure(self) -> tuple[list[Measured], Samples, dict[str, Any] | None]:
        """Measure the figures, then check the gate itself, then take the samples of the gate."""
        rounds = self.options["rounds"]
        checks = self.mode == "compare" and bool(self.jobs) and self.base is not None
        turns = 2 * rounds
        total = len(self.groups) * turns + len(self.jobs) * turns + (turns if checks else 0)
        columns = (TextColumn("{task.description:<42}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
        with Progress(*columns, TimeElapsedColumn(), console=self.console) as progress:
            bar = progress.add_task("", total=total)
            measured = []
            for group in self.groups:
                progress.update(bar, description=group.title)
                load = place.read_load()
                measured.append(run_group(group, self.core, quick=self.options["quick"], load=load))
                progress.advance(bar, turns)
                if not progress.console.is_terminal:
                    self.console.print(f"{group.title}: {len(measured[-1].figures)} figures")

            def count_turn(job: str) -> None:
                progress.update(bar, description=job, advance=1)

            canary = self.check_gate(count_turn) if checks else None
            samples = Samples()
            for job in self.jobs:
                samples.add(take_samples([job], self.base, self.head, rounds, count_turn))
                if not progress.console.is_terminal:
                    self.console.print(f"{job}: done")
        return measured, samples, canary

    def check_gate(self, count_turn: Callable[[str], None]) -> dict[str, Any]:
        """Check that the gate detects 20 % more work on this machine now; otherwise it must not pass."""
        plain, planted = (Side(Path(sys.executable), self.core, plant) for plant in (0.0, PLANT))
        costs: dict[str, list[float]] = {"base": [], "head": []}
        for _ in range(CANARY_TRIES):
            samples = take_samples([CANARY_JOB], plain, planted, self.options["rounds"], count_turn)
            if CANARY_JOB not in samples.costs:
                self.problems.append(f"the canary could not be run: {samples.broken.get(CANARY_JOB)}")
                return {"seen": False, "text": "The canary could not be run."}
            for side, taken in samples.costs[CANARY_JOB].items():
                costs[side] += taken
            found = bench_gate.compare("canary", costs["base"], costs["head"], self.options["seed"])
            if found.failed:
                break
        said = f"{found.ratio:.2f} ({found.low:.2f} … {found.high:.2f}, limit {found.limit:.2f})"
        said += f" in {len(costs['head'])} samples per side"
        text = f"20 % more work in {CANARY_JOB} measured {said}: {'detected' if found.failed else 'missed'}."
        if not found.failed:
            self.problems.append(f"{text} The machine is too noisy for a verdict.")
        return asdict(found) | {"seen": found.failed, "text": text}

    def document(self) -> dict[str, Any]:
        """Measure everything and return the document of the report."""
        measured, samples, canary = self.measure()
        spreads = self.baseline.aa_spread if self.baseline else {}
        comparisons = [
            bench_gate.compare(job, costs["base"], costs["head"], self.options["seed"], spreads.get(job))
            for job, costs in samples.costs.items()
            if "base" in costs
        ]
        against = {"A/A": "against itself (A/A)", "canary": "canary", "compare": f"against {self.base_commit[:12]}"}
        title = f"{self.head_state} {against[self.mode]}" if self.base_commit or self.mode != "compare" else "figures"
        if samples.missing:
            self.remark(f"the base cannot run {', '.join(samples.missing)}; shown without a comparison")
        return {
            "version": 1,
            "title": title,
            "mode": self.mode,
            "quick": self.options["quick"],
            "head": str(self.head_state),
            "base": self.base_commit,
            "rounds": self.options["rounds"],
            "seed": self.options["seed"],
            "fingerprint": self.fingerprint,
            "load": {"start": self.load, "end": place.read_load()},
            "duration_s": time.monotonic() - self.started,
            "remarks": self.remarks,
            "baseline": {
                "revision": self.baseline.revision if self.baseline else "",
                "median_cost": dict(self.baseline.median_cost) if self.baseline else {},
                "figures": dict(self.baseline.figures) if self.baseline else {},
            },
            "gate": {
                "comparisons": [asdict(one) | {"failed": one.failed} for one in comparisons],
                "samples": samples.costs,
                "units": {job: bench_jobs.JOBS[job][0] for job in self.jobs},
                "missing": samples.missing,
                "broken": samples.broken,
                "canary": canary,
            },
            "groups": [asdict(one) for one in measured],
            "verdict": judge(self.mode, comparisons, samples, measured, self.problems),
        }

    def record(self, document: dict[str, Any]) -> None:
        """Record the baseline of this machine from the measurements of this run."""
        figures = {
            bench_report.figure_key(group["name"], figure["name"]): figure["value"]
            for group in document["groups"]
            for figure in group["figures"]
        }
        bench_baseline.record(
            self.options["baseline"],
            document["gate"]["samples"],
            figures,
            fingerprint=self.fingerprint,
            revision=str(self.head_state),
            load=max(document["load"].values()),
            rounds=self.options["rounds"],
        )
        self.console.print(f"baseline: {self.options['baseline']}", markup=False)


@click.command(help="Measure this checkout and compare it with a base revision.")
@click.option("--base", help="The revision to compare with [HEAD if the tree has changes, else origin/main or HEAD~1].")
@click.option("--rounds", default=bench_gate.MINIMUM_ROUNDS, show_default=True, help="Runs per side; an even number.")
@click.option(
    "--only", multiple=True, type=click.Choice([*GROUPS, *bench_jobs.JOBS]), help="Run only these jobs and groups."
)
@click.option("--quick", is_flag=True, help="Measure the figures with less work and fewer sizes.")
@click.option("--no-figures", is_flag=True, help="Run the gate alone.")
@click.option("--no-gate", is_flag=True, help="Measure the figures alone, without a base.")
@click.option("--core", type=click.Choice(["auto", "native", "python"]), default="auto", show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path), default=place.ROOT / "out/benchmark", help="Folder of the reports."
)
@click.option("--baseline", type=click.Path(path_type=Path), default=BASELINE, help="The recorded baseline.")
@click.option("--aa", is_flag=True, help="Compare the head with itself and record the baseline.")
@click.option("--canary", is_flag=True, help="Plant more work in the head; the gate must fail it.")
@click.option("--plant", default=PLANT, show_default=True, help="Share of work that --canary plants.")
@click.option("--peer-python", help="An interpreter with ai-dynamo-runtime, for the comparison with Dynamo.")
@click.option("--seed", default=1, show_default=True, help="Seed of the bootstrap.")
def main(peer_python: str | None, **options: Any) -> None:
    """Run, write the report, and exit with the verdict."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    if options["aa"] and options["canary"]:
        raise click.UsageError("--aa and --canary exclude each other")
    try:
        bench_gate.interleaving(options["rounds"])
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if peer_python:
        os.environ["KVSYNC_DYNAMO_PYTHON"] = peer_python
    out = options["out"].resolve()
    with place.exclusive(out):
        run = Run(options, console)
        run.prepare(out)
        document = run.document()
        paths = [bench_page.write_page(document, out), bench_report.write_json(document, out)]
        bench_report.show(document, console)
        console.print(f"report: {', '.join(map(str, paths))}", markup=False)
        if options["aa"] and document["verdict"]["passed"]:
            run.record(document)
        elif options["aa"]:
            console.print("the baseline was not recorded because the run failed", style="red")
    if not document["verdict"]["passed"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
