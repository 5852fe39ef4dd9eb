"""`kvsync audit`."""

import sys
from collections.abc import Sequence

import click
import msgspec
from rich.console import Console
from rich.table import Table

from kvsync.addresses import check_http_url
from kvsync.index_commands import ask, ask_all, index_option
from kvsync.replicas.auditing import ReplicaAuditor
from kvsync.replicas.report import ReplicaReport
from kvsync_indexer.api import AuditReport
from kvsync_indexer.client import AsyncIndexClient
from kvsync_indexer.client.calls import TIMEOUT_S


@click.command("audit")
@click.argument("publishers", nargs=-1)
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0, 600),
    default=10.0,
    show_default=True,
    help="Longest wait for idle engines, or for replicas to reach a common position, s.",
)
@click.option("--json", "as_json", is_flag=True, help="The verdicts as JSON.")
@click.option(
    "--replicas",
    metavar="URL,URL",
    multiple=True,
    help="Compare these indexes with each other instead, and resynchronise those that differ from the engine.",
)
@click.option("--no-repair", is_flag=True, help="With --replicas: change nothing.")
@index_option
def command(
    publishers: tuple[str, ...],
    wait_s: float,
    as_json: bool,
    replicas: tuple[str, ...],
    no_repair: bool,
    index_url: str | None,
) -> None:
    """Have an index compare itself with the engines' own block tables; exit 0 only if all are equal."""
    if replicas:
        _replicas(_urls(replicas, index_url), publishers, wait_s, repair=not no_repair, as_json=as_json)
    if no_repair:
        raise click.UsageError("--no-repair is only for --replicas")

    async def put(index: AsyncIndexClient) -> AuditReport:
        return await index.audit(publishers, wait_s)

    audit = ask(index_url, put, wait_s + TIMEOUT_S)
    if as_json:
        click.echo(msgspec.json.encode(audit).decode())
    else:
        _print(audit)
    sys.exit(0 if audit.equal and audit.publishers else 1)


def _urls(replicas: Sequence[str], index_url: str | None) -> list[str]:
    urls = [check_http_url(url.strip(), "--replicas") for given in replicas for url in given.split(",") if url.strip()]
    if index_url is not None:
        raise click.UsageError("give either --index or --replicas")
    if len(set(urls)) < 2 or len(set(urls)) < len(urls):
        raise click.UsageError("--replicas names at least two indexes, each of them once")
    return urls


def _replicas(urls: Sequence[str], publishers: Sequence[str], wait_s: float, *, repair: bool, as_json: bool) -> None:
    """Compare the replicas, print the report and exit."""

    async def put(indexes: Sequence[AsyncIndexClient]) -> ReplicaReport:
        return await ReplicaAuditor(indexes, wait_s=wait_s, repair=repair).audit(publishers)

    report = ask_all(urls, put, wait_s + TIMEOUT_S)
    if as_json:
        click.echo(msgspec.json.encode(report).decode())
    else:
        _print_replicas(report)
    sys.exit(0 if report.equal and report.publishers else 1)


def _print_replicas(report: ReplicaReport) -> None:
    table = _table("publisher", "verdict")
    table.add_column("position", justify="right")
    for at, _ in enumerate(report.replicas, 1):
        table.add_column(f"replica {at}", justify="right")
    table.add_column("")
    for row in report.publishers:
        position = "" if row.position is None else f"{row.position:,}"
        table.add_row(row.publisher, row.verdict, position, *(f"{one.blocks:,}" for one in row.replicas), row.detail)
    for at, url in enumerate(report.replicas, 1):
        click.echo(f"replica {at}: {url}")
    Console().print(table)
    counts = f"{report.compared} of {len(report.publishers)} compared"
    click.echo(f"{counts}, {report.repaired} repaired, {report.differences} different")


def _print(audit: AuditReport) -> None:
    table = _table("publisher", "verdict", "state")
    for name in ("engine", "index", "missing", "extra"):
        table.add_column(name, justify="right")
    table.add_column("")
    for row in audit.publishers:
        counts = (row.engine_blocks, row.index_blocks, row.missing, row.extra)
        table.add_row(row.publisher, row.verdict, row.state, *(f"{count:,}" for count in counts), row.detail)
    Console().print(table)
    click.echo(f"{audit.audited} of {len(audit.publishers)} compared, {audit.differences} differences")


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2), pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, no_wrap=True)
    return table
