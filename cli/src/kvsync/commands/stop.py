"""The command `kvsync stop`, which ends what `up` runs and what `demo --keep` has left running."""

from pathlib import Path

import click

from kvsync.errors import UsageProblemError
from kvsync.local import detached_run
from kvsync.local.detached_run import DetachedRun


@click.command("stop")
@click.option("--out", type=click.Path(path_type=Path), help="End the run with this output folder.")
@click.option("--all", "every", is_flag=True, help="End every run of this user.")
def command(out: Path | None, every: bool) -> None:
    """End the demo that was left running with --keep, or the run of `kvsync up`. --out chooses among several."""
    if out is not None and every:
        raise click.UsageError("--out and --all exclude each other")
    runs = _chosen(out, every=every)
    if not runs:
        click.echo("nothing runs" if out is None else f"{out}: nothing runs")
    for run in runs:
        detached_run.end(run)
        count = len(run.processes)
        click.echo(f"{run.describe()}: ended ({count} process{'es' if count > 1 else ''})")


def _chosen(out: Path | None, *, every: bool) -> list[DetachedRun]:
    if out is not None:
        run = detached_run.find(out)
        return [] if run is None else [run]
    runs = detached_run.find_all()
    if len(runs) > 1 and not every:
        listed = "; ".join(run.describe() for run in runs)
        raise UsageProblemError(f"{len(runs)} runs exist; choose one with --out or end all with --all: {listed}")
    return runs
