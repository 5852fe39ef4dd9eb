"""`kvsync stop`: end what `--keep` left."""

from pathlib import Path

import click

from kvsync.local import detached_run


@click.command("stop")
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/demo"), show_default=True)
def command(out: Path) -> None:
    """End the demo that was left running in OUT."""
    run = detached_run.end(out)
    if run is None:
        click.echo(f"{out}: nothing runs")
    else:
        click.echo(f"{out}: {len(run.processes)} processes ended")
