"""The command `kvsync steps`, which writes step logs that can be compared with those of vLLM."""

import os
import sys
import tempfile
from pathlib import Path

import click

from kvsync.errors import UsageProblemError
from kvsync_mockpod.errors import ScenarioError
from kvsync_mockpod.steps import run_steps


@click.command("steps")
@click.argument("scenario", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write here [default: stdout].")
def command(scenario: Path, output: Path | None) -> None:
    """Run the engine on SCENARIO (.jsonl or .jsonl.gz) and write its step log, one JSON line per step."""
    try:
        if output is None:
            run_steps(scenario, sys.stdout)
            sys.stdout.flush()
        else:
            _write_whole(scenario, output)
    except ScenarioError as error:
        raise UsageProblemError(str(error)) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageProblemError(f"{error.filename or output}: {error.strerror}") from None


def _write_whole(scenario: Path, output: Path) -> None:
    """Write the log to a temporary file and move it, so that the output is complete or missing."""
    handle, name = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.")
    part = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            run_steps(scenario, out)
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
