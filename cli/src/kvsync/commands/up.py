"""`kvsync up`."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kvsync.errors import UsageProblemError
from kvsync.folders import check_folder
from kvsync.local import detached_run
from kvsync.local.addresses import claim_network
from kvsync.local.cluster import LocalCluster
from kvsync.local.manifests import read_resources
from kvsync.local.pods import LocalPod, plan_pods
from kvsync.local.supervisor import Supervisor
from kvsync.report.files import write_whole
from kvsync.running import client_session, run_interruptible
from kvsync_indexer.api import PublisherRow
from kvsync_indexer.client import AsyncIndexClient, IndexClientError

REFRESH_S = 0.5
STATE_FILE = "state.json"
HTTP_PORTS = ("http", "router")
"""Names of the ports of pods that speak HTTP; on all others, ZMQ is spoken."""


@click.command("up")
@click.option(
    "-f", "--filename", "files", multiple=True, required=True, type=click.Path(path_type=Path), help="File or folder."
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/up"), show_default=True)
def command(files: tuple[Path, ...], out: Path) -> None:
    """Run the MockEngine and PrefixIndex resources in FILES as processes of this machine, until Ctrl-C.

    Each pod has a loopback address of its own and the ports it has in a cluster. A process that ends is started again.
    OUT holds the logs, the configuration and, when every pod is ready, state.json with their addresses.
    """
    resources = read_resources(files)
    check_folder(out, "--out")
    running = detached_run.find(out)
    if running is not None:
        raise UsageProblemError(f"{running.describe()} still runs; `kvsync stop --out {out}` ends it")
    (out / STATE_FILE).unlink(missing_ok=True)
    network = claim_network(lambda network: _ports(plan_pods(resources, network, out)))
    supervisor = Supervisor()
    try:
        pods = plan_pods(resources, network, out)
        run_interruptible(_run(pods, supervisor, out))
    finally:
        supervisor.close()
        network.release()
        (out / STATE_FILE).unlink(missing_ok=True)
        detached_run.forget(out)


def _ports(pods: list[LocalPod]) -> Iterator[tuple[str, int]]:
    for pod in pods:
        yield from ((pod.host, port) for port in pod.ports.values())


async def _run(pods: list[LocalPod], supervisor: Supervisor, out: Path) -> None:
    async with client_session() as session:
        cluster = LocalCluster(pods, supervisor, session)
        await cluster.start()
        write_whole(out / STATE_FILE, json.dumps([_address(pod) for pod in pods], indent=2) + "\n")
        index = next((pod.http_url for pod in pods if pod.role == "index"), None)
        router = next((pod.router_url for pod in pods if pod.router_url is not None), None)
        detached_run.remember_this_process("up", out, index, router)
        for line in address_lines(pods):
            click.echo(line)
        click.echo(f"{len(pods)} pods are ready; Ctrl-C or kvsync stop ends them")
        indexes = [AsyncIndexClient(pod.http_url, session=lambda: session) for pod in pods if pod.role == "index"]
        async with asyncio.TaskGroup() as group:
            group.create_task(cluster.keep_running())
            group.create_task(_show(cluster, indexes))


def address_lines(pods: Sequence[LocalPod]) -> list[str]:
    """One line per pod with every address that it serves."""
    width = max(len(pod.name) for pod in pods)
    lines: list[str] = []
    for pod in pods:
        served = (
            f"{name} {'http' if name in HTTP_PORTS else 'tcp'}://{pod.host}:{port}" for name, port in pod.ports.items()
        )
        lines.append(f"{pod.name:<{width}}  {'  '.join(served)}")
    return lines


def _address(pod: LocalPod) -> dict[str, object]:
    return {
        "name": pod.name,
        "role": pod.role,
        "host": pod.host,
        "ports": dict(pod.ports),
        "http_url": pod.http_url,
        "router_url": pod.router_url,
        "log": str(pod.spec.log),
    }


async def _show(cluster: LocalCluster, indexes: list[AsyncIndexClient]) -> None:
    """Show a live table on a terminal, and one line per change elsewhere."""
    console = Console(highlight=False)
    if not console.is_terminal:
        await _say_changes(cluster)
        return
    with Live(console=console, refresh_per_second=4) as live:
        while True:
            live.update(_render(cluster, await _rows(indexes)))
            await asyncio.sleep(REFRESH_S)


async def _say_changes(cluster: LocalCluster) -> None:
    shown = {name: (state.ready, state.restarts) for name, state in cluster.states.items()}
    while True:
        await asyncio.sleep(REFRESH_S)
        for name, state in cluster.states.items():
            if shown[name] != (state.ready, state.restarts):
                shown[name] = (state.ready, state.restarts)
                text = f"is ready, restart {state.restarts}" if state.ready else state.reason
                click.echo(f"{name}: {text}")


async def _rows(indexes: list[AsyncIndexClient]) -> dict[str, list[PublisherRow]]:
    rows: dict[str, list[PublisherRow]] = {}
    for index in indexes:
        try:
            for row in await index.publishers():
                rows.setdefault(row.name.partition("/")[0], []).append(row)
        except IndexClientError:
            continue
    return rows


def _render(cluster: LocalCluster, rows: dict[str, list[PublisherRow]]) -> Table:
    table = Table(box=None, padding=(0, 2), pad_edge=False, header_style="dim")
    for column in ("pod", "address", "ready", "restarts", "in the index", "blocks"):
        table.add_column(column, justify="right" if column in ("restarts", "blocks") else "left")
    for name, state in cluster.states.items():
        pod, published = state.pod, rows.get(name, [])
        table.add_row(
            name,
            pod.router_url or pod.http_url,
            Text("yes", "green") if state.ready else Text(state.reason or "starting", "yellow"),
            str(state.restarts),
            ", ".join(sorted({row.state for row in published})) or "-",
            f"{sum(row.blocks for row in published):,}" if published else "-",
        )
    return table
