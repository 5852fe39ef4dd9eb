"""`kvsync trace`."""

from pathlib import Path

import click

from kvsync.report.files import write_whole
from kvsync_mockpod.text import Tokenizer
from kvsync_workload.request_log import convert_log


@click.command("trace")
@click.argument("log", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write here [default: stdout].")
def command(log: Path, output: Path | None) -> None:
    """Turn LOG, a JSONL log of OpenAI requests, into a trace that `demo` and `replay` read; no text is kept."""
    lines = convert_log(log, Tokenizer().encode)
    text = "".join(f"{line}\n" for line in lines)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_whole(output, text)
        click.echo(f"{output}: {len(lines)} requests")
