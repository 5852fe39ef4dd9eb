"""Runs a whole demo, from its settings to its report.

No process outlives the demo unless the settings ask for it.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console

from kvsync.demo.legs import Leg, plan_legs
from kvsync.demo.next_steps import KeptRun
from kvsync.demo.phase import Phase, PhaseResult, Progress
from kvsync.demo.report import build_report
from kvsync.demo.resources import build_resources
from kvsync.demo.settings import DemoSettings, Workload, prepare
from kvsync.demo.showcase import cache_prompt
from kvsync.demo.view import View
from kvsync.errors import UsageProblemError
from kvsync.local import detached_run
from kvsync.local.addresses import Network, claim_network
from kvsync.local.stack import Stack, wanted_ports
from kvsync.local.supervisor import Supervisor
from kvsync.replay.limits import find_model
from kvsync.report.files import write_whole
from kvsync.running import client_session, run_interruptible
from kvsync_indexer.client import AsyncIndexClient

REPORT_NAMES = ("report.json", "report.html")


def run_demo(settings: DemoSettings, console: Console) -> dict[str, Any]:
    """Run the demo and return its report.

    Raises:
        KvsyncError: the demo could not be carried out. A demo that was carried out has a verdict, good or bad.
    """
    workload = prepare(settings)
    if detached_run.find(settings.out) is not None:
        raise UsageProblemError(f"a demo in {settings.out} still runs; `kvsync stop --out {settings.out}` ends it")
    legs = plan_legs(settings.policies, kill=settings.restart)
    for name in REPORT_NAMES:
        (settings.out / name).unlink(missing_ok=True)
    for leg in legs:
        shutil.rmtree(settings.out / leg.folder, ignore_errors=True)
    results, kept = run_interruptible(_run_legs(settings, workload, legs, console))
    return build_report(settings, workload, results, kept)


def write_report(report: dict[str, Any], out: Path) -> None:
    """Write both files of the report.

    Raises:
        UsageProblemError: the folder cannot be written to.
    """
    from kvsync.demo.page import build_page
    from kvsync_pages import render

    write_whole(out / "report.json", json.dumps(report, indent=2) + "\n")
    write_whole(out / "report.html", render(build_page(report)))


async def _run_legs(
    settings: DemoSettings, workload: Workload, legs: list[Leg], console: Console
) -> tuple[list[PhaseResult], KeptRun | None]:
    view = View(console, workload.ideal.hit_tokens)
    network = claim_network(lambda network: wanted_ports(network, settings.engines))
    results: list[PhaseResult] = []
    kept: KeptRun | None = None
    try:
        for leg in legs:
            keep = settings.keep and leg is legs[-1]
            result, kept = await _run_leg(leg, settings, workload, network, view, keep=keep)
            results.append(result)
    finally:
        network.release()
    return results, kept


async def _run_leg(
    leg: Leg, settings: DemoSettings, workload: Workload, network: Network, view: View, *, keep: bool
) -> tuple[PhaseResult, KeptRun | None]:
    supervisor = Supervisor(outlive_us=keep)
    kept: KeptRun | None = None
    try:
        async with client_session() as session:
            resources = build_resources(settings, workload)
            stack = Stack(resources, supervisor, network, settings.out / leg.folder, session)
            progress = Progress(leg, len(workload.prompts))
            async with view.showing(progress):
                result = await Phase(leg, settings, workload, stack, session, progress).run()
            if keep:
                index = AsyncIndexClient(stack.index_url, session=lambda: session)
                prompt = await cache_prompt(
                    session, stack.router_url, index, await find_model(session, stack.router_url)
                )
                hosts = {pod.name: pod.host for pod in stack.engines}
                kept = KeptRun(stack.index_url, stack.router_url, hosts, prompt)
        if keep:
            detached_run.remember(settings.out, stack.index_url, stack.router_url, supervisor.processes())
            supervisor.release()
    finally:
        supervisor.close()
    return result, kept
