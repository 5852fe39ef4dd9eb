"""The command `kvsync demo`."""

import sys
from pathlib import Path

import click
from rich.console import Console

from kvsync.demo.run import run_demo, write_report
from kvsync.demo.settings import DemoSettings
from kvsync.demo.table import print_next_steps, print_results
from kvsync.errors import UsageProblemError
from kvsync_router.decisions.policies import POLICY_NAMES

TRACE = Path("examples/traces/mooncake_conversation.jsonl")
PLAIN_WIDTH = 120
CORE_CHOICES = ("auto", "python", "native")


def default_trace() -> Path:
    """Return the path of the project's trace, in this folder or in the checkout that contains this package."""
    checkout = Path(__file__).resolve().parents[4]
    return TRACE if TRACE.exists() or not (checkout / TRACE).exists() else checkout / TRACE


def _policies(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in value.split(",")))
    for name in names:
        if name not in POLICY_NAMES:
            raise click.BadParameter(f"{name!r} is not a policy; allowed are {', '.join(POLICY_NAMES)}")
    return names


@click.command("demo")
@click.option("--engines", type=click.IntRange(1, 64), default=3, show_default=True, help="Mock engines.")
@click.option("--requests", type=click.IntRange(min=1), default=1000, show_default=True, help="Requests per leg.")
@click.option("--trace", type=click.Path(path_type=Path), help="Mooncake-style JSONL [default: the one that ships].")
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True)
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    help="Play arrivals this many times faster [default: about 10 s per leg].",
)
@click.option(
    "--policy",
    "policies",
    default="round_robin,kv",
    show_default=True,
    callback=_policies,
    help="Policies to run, in order, each with untouched engines.",
)
@click.option(
    "--blocks",
    type=click.IntRange(min=2),
    help="Blocks per engine [default: all engines together hold 3/4 of the working set].",
)
@click.option(
    "--host-blocks",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Blocks in the host tier of each engine.",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/demo"), show_default=True)
@click.option("--no-restart", is_flag=True, help="Leave out the leg in which an engine is killed and started again.")
@click.option("--keep", is_flag=True, help="Leave the last run's processes running; `kvsync stop` ends them.")
@click.option("--core", type=click.Choice(CORE_CHOICES), default="auto", show_default=True, help="Index core.")
def command(
    engines: int,
    requests: int,
    trace: Path | None,
    seed: int,
    speed: float | None,
    policies: tuple[str, ...],
    blocks: int | None,
    host_blocks: int,
    out: Path,
    no_restart: bool,
    keep: bool,
    core: str,
) -> None:
    """Run mock engines, an index and a router on a real trace, and write a report.

    Each policy gets new processes and is left alone, so that the policies can be compared. A last leg repeats kv, kills
    one engine with kill -9 and starts it again. The exit code is 0 if every request was answered, the audit found no
    difference, and the index noticed the kill. From 300 requests on, kv must also have a higher hit ratio than round
    robin.
    """
    if out.exists() and not out.is_dir():
        raise UsageProblemError(f"--out {out}: is a file")
    settings = DemoSettings(
        trace=trace or default_trace(),
        engines=engines,
        requests=requests,
        seed=seed,
        speed=speed,
        policies=policies,
        blocks=blocks,
        host_blocks=host_blocks,
        out=out,
        restart=not no_restart,
        keep=keep,
        core=core,
    )
    console = Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)
    report = run_demo(settings, console)
    print_results(console, report)
    print_next_steps(console, report)
    write_report(report, out)
    console.print(f"report: {out / 'report.html'}", highlight=False)
    sys.exit(0 if report["passed"] else 1)
