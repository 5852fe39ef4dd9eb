"""The `kvsync-mockpod` command: parses the command line and runs a pod. Every refusal is one line on stderr.

Exit codes: 0 after a clean stop, 1 if the pod cannot start, 2 for an invalid flag, key or value.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from kvsync_mockpod import __version__
from kvsync_mockpod.config import build_config, ignored_keys
from kvsync_mockpod.config.flags import IGNORED_FLAGS, build_options, normalize_arguments
from kvsync_mockpod.engine import EngineConfigError
from kvsync_mockpod.errors import ConfigError, StartError

NAME = "kvsync-mockpod"


def _callback(config_file: Path | None, model_tag: str | None, **flags: object) -> None:
    from kvsync_mockpod.latency import build_latency
    from kvsync_mockpod.pod import Environment, ignored_variables, unknown_variables
    from kvsync_mockpod.server import WithoutEffect, run_pod

    given = {name: value for name, value in flags.items() if not name.startswith("ignored_")}
    if model_tag is not None and given.get("model") is None:
        given["model"] = model_tag
    config = build_config(given, config_file)
    environment = Environment.read(os.environ)
    ignored = [name for name in IGNORED_FLAGS if flags.get(f"ignored_{name}") not in (None, ())]
    ignored += [] if config_file is None else ignored_keys(config_file)
    without_effect = WithoutEffect(ignored, ignored_variables(os.environ), unknown_variables(os.environ))
    run_pod(config, environment, build_latency(config), without_effect)


def _command() -> click.Command:
    command = click.Command(
        NAME,
        params=build_options(),
        callback=_callback,
        help="A mock LLM engine pod: vLLM's HTTP API, scheduler and KV events, without a GPU.",
        context_settings={"max_content_width": 110},
    )
    return click.version_option(__version__, prog_name=NAME)(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; always ends the process."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _command().main(args=normalize_arguments(given), prog_name=NAME, standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        _fail(" ".join(error.format_message().split()), 2)
    except (ConfigError, EngineConfigError) as error:
        _fail(str(error), 2)
    except StartError as error:
        _fail(str(error), 1)
    sys.exit(0)


def _fail(message: str, code: int) -> None:
    click.echo(f"{NAME}: {message}", err=True)
    sys.exit(code)
