"""`kvsync audit`."""

import sys

import click
import msgspec
from rich.console import Console
from rich.table import Table

from kvsync.index_commands import ask, index_option
from kvsync_indexer.api import AuditReport
from kvsync_indexer.client import AsyncIndexClient


@click.command("audit")
@click.argument("publishers", nargs=-1)
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0, 600),
    default=10.0,
    show_default=True,
    help="Longest wait for idle engines, s.",
)
@click.option("--json", "as_json", is_flag=True, help="The verdicts as JSON.")
@index_option
def command(publishers: tuple[str, ...], wait_s: float, as_json: bool, index_url: str | None) -> None:
    """Have an index compare itself with the engines' own block tables; exit 0 only if all are equal."""

    async def put(index: AsyncIndexClient) -> AuditReport:
        return await index.audit(publishers, wait_s)

    audit = ask(index_url, put)
    if as_json:
        click.echo(msgspec.json.encode(audit).decode())
    else:
        _print(audit)
    sys.exit(0 if audit.equal and audit.publishers else 1)


def _print(audit: AuditReport) -> None:
    table = Table(box=None, padding=(0, 2), pad_edge=False, header_style="bold")
    for name in ("publisher", "verdict", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("engine", "index", "missing", "extra"):
        table.add_column(name, justify="right")
    table.add_column("")
    for row in audit.publishers:
        counts = (row.engine_blocks, row.index_blocks, row.missing, row.extra)
        table.add_row(row.publisher, row.verdict, row.state, *(f"{count:,}" for count in counts), row.detail)
    Console().print(table)
    click.echo(f"{audit.audited} of {len(audit.publishers)} compared, {audit.differences} differences")
