"""The entry point of `kvsync`, and the translation of errors to one line on stderr and an exit code.

The module of a subcommand is imported when the subcommand is called, so that none waits for the
imports of the others.
"""

import difflib
import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

import click

from kvsync.errors import KvsyncError, UsageProblemError
from kvsync_indexer.client.errors import IndexClientError
from kvsync_workload.errors import WorkloadError

COMMANDS = {
    "audit": "Compare an index with the block tables of its engines.",
    "calibrate": "Fit a latency model to a real engine.",
    "demo": "Run engines, an index and a router on a real trace, with a restart and a report.",
    "doctor": "Report what works here, with the next step for each problem.",
    "match": "Show which engine holds how much of a prompt.",
    "plan": "Replay a trace under many configurations and find the smallest that meets an objective.",
    "replay": "Replay a trace against a running server, or offline in virtual time.",
    "steps": "Run the mock engine on a scripted schedule and write its step log.",
    "stop": "End what `up` or `demo --keep` runs.",
    "tail": "Print the decoded events of a publisher, one per line, with gaps marked.",
    "trace": "Make a trace from a log of OpenAI requests.",
    "up": "Run MockEngine and PrefixIndex resources as local processes.",
}


class LazyGroup(click.Group):
    """A group that lists its commands without importing their modules."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names of the commands, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the module of a command and return its `command`, or None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"kvsync.commands.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve the command, and suggest the nearest name for an unknown one."""
        if args[0] not in COMMANDS:
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; the commands are {', '.join(sorted(COMMANDS))}"
            raise click.UsageError(f"no such command {args[0]!r}{hint}", None)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands in --help from `COMMANDS`."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    invoke_without_command=True,
)
@click.version_option(version("kvsync"), prog_name="kvsync")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Run mock engines, a prefix index and a router, and check that the index is right."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit. Every expected failure is one line on stderr and an exit code."""
    try:
        code = cli.main(args=arguments, prog_name="kvsync", standalone_mode=False)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "kvsync"
        _report(where, error.format_message())
        code = error.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        _report("kvsync", "interrupted")
        code = 130
    except click.ClickException as error:
        _report("kvsync", error.format_message())
        code = error.exit_code
    except WorkloadError as error:
        _report("kvsync", str(error))
        code = UsageProblemError.exit_code
    except KvsyncError as error:
        _report("kvsync", str(error))
        code = error.exit_code
    except IndexClientError as error:
        _report("kvsync", f"index {error}")
        code = KvsyncError.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    except OSError as error:
        if error.filename is None:
            raise
        _report("kvsync", f"{error.filename}: {(error.strerror or str(error)).lower()}")
        code = KvsyncError.exit_code
    sys.exit(code if isinstance(code, int) else 0)


def _report(where: str, message: str) -> None:
    click.echo(f"{where}: {' '.join(message.split())}", err=True)


if __name__ == "__main__":
    main()
