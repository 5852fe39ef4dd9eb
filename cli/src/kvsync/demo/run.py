"""Runs a whole demo, from its settings to its report.

No process outlives the demo unless the settings ask for it.
"""

import json
import shutil

from rich.console import Console

from kvsync.demo.phase import Phase, PhaseResult, Progress, restarted_policy
from kvsync.demo.report import Verdict, build_report, judge
from kvsync.demo.resources import build_resources
from kvsync.demo.settings import DemoSettings, Workload, prepare
from kvsync.demo.view import View
from kvsync.errors import UsageProblemError
from kvsync.local import detached_run
from kvsync.local.addresses import claim_network
from kvsync.local.stack import Stack, wanted_ports
from kvsync.local.supervisor import Supervisor
from kvsync.report.files import write_whole
from kvsync.running import client_session, run_interruptible

REPORT_NAMES = ("report.json", "report.html")


def run_demo(settings: DemoSettings, console: Console) -> Verdict:
    """Run the demo and write its report.

    Raises:
        KvsyncError: the demo could not be carried out. A demo that was carried out has a verdict, good or bad.
    """
    workload = prepare(settings)
    if detached_run.find(settings.out) is not None:
        raise UsageProblemError(f"a demo in {settings.out} still runs; `kvsync stop --out {settings.out}` ends it")
    for name in REPORT_NAMES:
        (settings.out / name).unlink(missing_ok=True)
    for policy in settings.policies:
        shutil.rmtree(settings.out / policy, ignore_errors=True)
    results = run_interruptible(_run_phases(settings, workload, console))
    report = build_report(settings, workload, results)
    from kvsync.demo.page import build_page
    from kvsync.report.page import render

    write_whole(settings.out / "report.html", render(build_page(report)))
    write_whole(settings.out / "report.json", json.dumps(report, indent=2) + "\n")
    return judge(results)


async def _run_phases(settings: DemoSettings, workload: Workload, console: Console) -> list[PhaseResult]:
    view = View(console, workload.ideal.hit_tokens)
    network = claim_network(lambda network: wanted_ports(network, settings.engines))
    resources = build_resources(settings, workload)
    results: list[PhaseResult] = []
    try:
        for policy in settings.policies:
            last = policy == settings.policies[-1]
            kept_run = settings.keep and last
            supervisor = Supervisor(outlive_us=kept_run)
            try:
                async with client_session() as session:
                    stack = Stack(resources, supervisor, network, settings.out / policy, session)
                    progress = Progress(policy, len(workload.prompts))
                    restart = settings.restart and policy == restarted_policy(settings.policies)
                    phase = Phase(policy, settings, workload, stack, session, progress, restart=restart)
                    async with view.showing(progress):
                        results.append(await phase.run())
                if kept_run:
                    detached_run.remember(settings.out, stack.index_url, stack.router_url, supervisor.processes())
                    supervisor.release()
            finally:
                supervisor.close()
    finally:
        network.release()
    return results
