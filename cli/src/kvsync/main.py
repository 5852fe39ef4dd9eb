"""`kvsync`: the command. Subcommands are imported when called, so that `kvsync match` never waits for plotly."""

import difflib
import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

import click

from kvsync.errors import KvsyncError, UsageProblemError
from kvsync_workload.errors import WorkloadError

COMMANDS = {
    "audit": "Compare an index with the engines' own block tables.",
    "demo": "Engines, an index and a router on a real trace, with a restart and a report.",
    "doctor": "Say what works here, and the next step for what does not.",
    "match": "Ask an index who holds how much of a prompt.",
    "replay": "Replay a trace against a running server, or offline in virtual time.",
    "steps": "Run the mock engine on a scripted schedule and write its step log.",
    "stop": "End a demo that was left running with --keep.",
    "tail": "Print a publisher's events decoded, one line each, with gaps marked.",
    "trace": "Make a trace from a log of OpenAI requests.",
    "up": "Run MockEngine and PrefixIndex resources as local processes.",
}


class LazyGroup(click.Group):
    """Lists commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command's module; its command is called `command`."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"kvsync.commands.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Say the nearest name for one that does not exist."""
        if args[0] not in COMMANDS:
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(COMMANDS))}"
            raise click.UsageError(f"no such command {args[0]!r}{hint}", None)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list in --help, from the table above."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("kvsync"), prog_name="kvsync")
def cli() -> None:
    """KV-cache events, an index that can be trusted, and a laboratory to prove it."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command; every expected failure is one line on stderr and an exit code."""
    try:
        code = cli.main(args=arguments, prog_name="kvsync", standalone_mode=False)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "kvsync"
        _say(where, error.format_message())
        code = error.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        _say("kvsync", "interrupted")
        code = 130
    except click.ClickException as error:
        _say("kvsync", error.format_message())
        code = error.exit_code
    except WorkloadError as error:
        _say("kvsync", str(error))
        code = UsageProblemError.exit_code
    except KvsyncError as error:
        _say("kvsync", str(error))
        code = error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    sys.exit(code if isinstance(code, int) else 0)


def _say(where: str, message: str) -> None:
    click.echo(f"{where}: {' '.join(message.split())}", err=True)


if __name__ == "__main__":
    main()
