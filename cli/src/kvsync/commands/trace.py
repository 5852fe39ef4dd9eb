"""`kvsync trace`."""

from pathlib import Path

import click

from kvsync.load.request_log import convert_log
from kvsync.report.files import write_whole


@click.command("trace")
@click.argument("log", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write here [default: stdout].")
def command(log: Path, output: Path | None) -> None:
    """Turn LOG, a JSONL log of OpenAI requests, into a trace that `demo` and `replay` read; no text is kept."""
    lines = list(convert_log(log))
    text = "".join(f"{line}\n" for line in lines)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_whole(output, text)
        click.echo(f"{output}: {len(lines)} requests")
