"""The command `kvsync tail`, a ZMQ subscriber that decodes what it receives."""

import click

from kvsync.tailing.lines import as_json
from kvsync.tailing.sockets import TailRequest, follow


@click.command("tail")
@click.argument("endpoint")
@click.option("--replay", metavar="ENDPOINT", help="Replay endpoint: print the history first, and fill gaps from it.")
@click.option("--from", "start_seq", type=click.IntRange(min=0), help="First sequence to replay [default: 0].")
@click.option("--topic", default="", help="Subscription prefix [default: everything].")
@click.option(
    "--bind", is_flag=True, help="Bind ENDPOINT, for publishers that connect (vLLM does unless its endpoint has a *)."
)
@click.option("--count", type=click.IntRange(min=1), help="Stop after this many events.")
@click.option(
    "--idle", "idle_s", type=click.FloatRange(min=0.0), help="Stop when no message arrived for this many seconds."
)
@click.option("--json", "json_lines", is_flag=True, help="Print one JSON object per line.")
def command(
    endpoint: str,
    replay: str | None,
    start_seq: int | None,
    topic: str,
    bind: bool,
    count: int | None,
    idle_s: float | None,
    json_lines: bool,
) -> None:
    """Print the events of the publisher at ENDPOINT, one per line. Gaps and restarts are marked with --."""
    if start_seq is not None and replay is None:
        raise click.UsageError("--from needs --replay")
    first = (start_seq or 0) if replay is not None else None
    events = 0
    lines = follow(TailRequest(endpoint, replay, topic, bind, first, idle_s))
    try:
        for line in lines:
            if line.kind == "connection":
                click.echo(line.text, err=True)
                continue
            click.echo(as_json(line) if json_lines else line.text)
            events += line.kind == "event"
            if count is not None and events >= count:
                break
    finally:
        lines.close()  # type: ignore[attr-defined]
