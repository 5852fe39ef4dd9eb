"""`kvsync calibrate`."""

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from kvsync.calibration.answers import Answer, read_bench
from kvsync.calibration.fit import Error, Fit, fit_latency
from kvsync.calibration.probe import make_probe, run_probe
from kvsync.calibration.samples import decode_samples, prefill_samples
from kvsync.replay.limits import find_limits
from kvsync.report.files import write_whole
from kvsync.running import client_session, run_interruptible


@click.command("calibrate")
@click.argument("log", required=False, type=click.Path(path_type=Path))
@click.option("--target", metavar="URL", help="Measure this server instead of reading a log.")
@click.option("--model", help="With --target: the model [default: the first that the server lists].")
@click.option(
    "--longest", type=click.IntRange(16), default=8192, show_default=True, help="Longest prompt of the probe."
)
@click.option(
    "--together", type=click.IntRange(1, 32), default=16, show_default=True, help="Most answers decoded together."
)
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Write the profile here.")
def command(**flags: Any) -> None:  # noqa: ANN401
    """Fit a latency model to a real engine and write a profile that `--mock-latency` and `plan --latency` read.

    LOG is the result file of `vllm bench serve --save-result --save-detailed`. Every fifth measurement is held back;
    the errors that are printed are those on that part.
    """
    if (flags["log"] is None) == (flags["target"] is None):
        raise click.UsageError("give LOG or --target URL")
    answers = read_bench(flags["log"]) if flags["log"] is not None else _probe(flags)
    fit = fit_latency(prefill_samples(answers), decode_samples(answers))
    source = str(flags["log"]) if flags["log"] is not None else flags["target"]
    write_whole(flags["output"], json.dumps(_profile(fit, source, len(answers)), indent=2) + "\n")
    _print(fit, flags["output"])


def _probe(flags: dict[str, Any]) -> list[Answer]:
    url = flags["target"].rstrip("/")
    url = url if "://" in url else f"http://{url}"
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        shown = progress.add_task("measuring", total=None)

        async def run() -> list[Answer]:
            async with client_session() as session:
                limits = await find_limits(session, url, flags["model"])
                plan = make_probe(limits.max_model_len, longest=flags["longest"], together=flags["together"])
                return await run_probe(
                    session,
                    url,
                    limits,
                    plan,
                    flags["seed"],
                    lambda done, total: progress.update(shown, completed=done, total=total),
                )

        return run_interruptible(run())


def _profile(fit: Fit, source: str, answers: int) -> dict[str, Any]:
    return {
        "latency": fit.coefficients,
        "source": source,
        "answers": answers,
        "fitted_samples": fit.fitted_samples,
        "error": {name: _error(error) for name, error in (("prefill", fit.prefill), ("decode", fit.decode))},
    }


def _error(error: Error) -> dict[str, float]:
    return {"samples": error.samples, "median": error.median, "p90": error.p90}


def _print(fit: Fit, output: Path) -> None:
    for name, value in fit.coefficients.items():
        click.echo(f"{name:<18} {value:>12g}")
    for name, error in (("prefill", fit.prefill), ("decode", fit.decode)):
        click.echo(
            f"{name}: median error {error.median:.1%}, p90 {error.p90:.1%} of {error.samples} steps that were held back"
        )
    click.echo(f"{output}: use it as kvsync-mockpod --mock-latency {output} or kvsync plan --latency {output}")
