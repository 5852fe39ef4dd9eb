"""`kvsync doctor`."""

import asyncio
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict

import click
from rich.console import Console
from rich.markup import escape

from kvsync.checks.finding import Finding
from kvsync.checks.machine import check_machine

MARKS = {"ok": "[green]ok     [/]", "note": "[yellow]note   [/]", "problem": "[red]problem[/]"}


@click.command("doctor")
@click.option(
    "--cluster", is_flag=True, help="Check the installation on the cluster of KUBECONFIG instead of this machine."
)
@click.option("--router", "router_url", metavar="URL", help="Say why the router's kv policy is no better than others.")
@click.option("--index", "index_url", metavar="URL", help="The index of this router, whose publishers are looked at.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON lines.")
def command(cluster: bool, router_url: str | None, index_url: str | None, as_json: bool) -> None:
    """Check this machine, a cluster or a router, and print the next step for each problem; exit 1 if there is one."""
    if cluster and router_url is not None:
        raise click.UsageError("--cluster and --router exclude each other")
    if index_url is not None and router_url is None:
        raise click.UsageError("--index needs --router")
    if router_url is not None:
        findings: Iterable[Finding] = _on_router(router_url, index_url)
    else:
        findings = _on_cluster() if cluster else check_machine()
    sys.exit(report(findings, as_json=as_json))


def _on_router(router_url: str, index_url: str | None) -> Iterable[Finding]:
    from kvsync.checks.routing import check_routing

    return asyncio.run(check_routing(router_url, index_url))


def _on_cluster() -> Iterable[Finding]:
    from kvsync.checks.cluster import check_cluster
    from kvsync.checks.kube import KubeApi, KubeError

    try:
        return check_cluster(KubeApi())
    except KubeError as error:
        return [Finding("problem", "cluster", str(error), "set KUBECONFIG, or run make cluster-up")]


def report(findings: Iterable[Finding], *, as_json: bool) -> int:
    """Print each finding as soon as it is available, and return the exit code."""
    console = Console(soft_wrap=True, highlight=False)
    problems = 0
    for finding in findings:
        problems += finding.level == "problem"
        if as_json:
            click.echo(json.dumps(asdict(finding)))
            continue
        console.print(f"{MARKS[finding.level]} {escape(finding.what)}: {escape(finding.detail)}")
        if finding.next_step:
            console.print(f"          next: {escape(finding.next_step)}")
    return 1 if problems else 0
