"""`kvsync-indexer`: turns flags into settings and runs the service, together with the fronts that the flags ask for."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from kvsync_indexer.config import IndexerConfig
from kvsync_indexer.engine_keys import read_api_key, read_secret
from kvsync_indexer.errors import IndexerError
from kvsync_indexer.fronts import Front, FrontRequest, installed_fronts, package_of_flag
from kvsync_indexer.logs import configure_logging

PROGRAM = "kvsync-indexer"
USAGE_ERROR = 2
INTERRUPTED = 130
_SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110}


def _options() -> list[click.Parameter]:
    return [
        click.Option(["--host"], default="0.0.0.0", help="Address to listen on."),
        click.Option(["--port"], type=int, default=8090, help="HTTP port of the index."),
        click.Option(
            ["--publishers"], type=click.Path(path_type=Path), help="YAML list of publishers; followed for changes."
        ),
        click.Option(["--discover"], help="Find publishers: kubernetes."),
        click.Option(["--selector"], default="kvsync.dev/kv-events=true", help="Label selector of engine pods."),
        click.Option(["--pool"], help="InferencePool whose pods to follow, in place of --selector."),
        click.Option(
            ["--namespace", "namespaces"], multiple=True, help="Namespace to look in; may be repeated; '*' for all."
        ),
        click.Option(["--core"], default="auto", help="Index core: auto, python or native."),
        click.Option(
            ["--trust"], default="live", help="live: match live publishers only; suspect: also those in doubt."
        ),
        click.Option(
            ["--learn-from-answers"],
            default="on",
            help="on: have engines announce prompts again that answers show to be cached and unknown; off: never.",
        ),
        click.Option(["--topic"], default="", help="Subscription prefix of publishers that set none."),
        click.Option(
            ["--stale-after", "stale_after_s"], default="10s", help="Silence after which a publisher is stale."
        ),
        click.Option(
            ["--replay-timeout", "replay_timeout_s"], default="2s", help="Longest silence of a replay server."
        ),
        click.Option(
            ["--audit-interval", "audit_interval_s"], default="0", help="Audit all publishers this often; 0: never."
        ),
        click.Option(["--max-blocks"], type=int, default=8_000_000, help="Resident blocks one publisher may have."),
        click.Option(
            ["--heartbeats/--no-heartbeats"], default=True, help="ZMQ heartbeats (off for peers that ignore them)."
        ),
        click.Option(["--snapshot-dir"], type=click.Path(path_type=Path), help="Directory for periodic snapshots."),
        click.Option(["--snapshot-interval", "snapshot_interval_s"], default="30s", help="How often to write one."),
        click.Option(["--bootstrap-from"], help="URL of a running index to take a snapshot from at start."),
        click.Option(
            ["--engine-api-key"],
            envvar="KVSYNC_ENGINE_API_KEY",
            show_default=False,
            help="Key of the engines' HTTP API (or KVSYNC_ENGINE_API_KEY).",
        ),
        click.Option(
            ["--engine-api-key-file"], type=click.Path(path_type=Path), help="File that holds this key instead."
        ),
        click.Option(
            ["--curve-secret-key-file"],
            type=click.Path(path_type=Path),
            help="CURVE secret key of this index, for publishers that admit known keys only.",
        ),
        click.Option(["--curve-server-key"], help="CURVE public key of the publishers that name none of their own."),
        click.Option(
            ["--token-file"],
            type=click.Path(path_type=Path),
            help="File with bearer tokens of the HTTP API, one a line.",
        ),
        click.Option(["--audit-token-file"], type=click.Path(path_type=Path), help="The same for audits only."),
        click.Option(
            ["--dump-token-file"], type=click.Path(path_type=Path), help="The same for blocks, digests and snapshots."
        ),
        click.Option(
            ["--debug-token-file"],
            type=click.Path(path_type=Path),
            help="File with the bearer token of the engines' debug endpoints, for audits.",
        ),
        click.Option(["--tls-cert"], type=click.Path(path_type=Path), help="Certificate of the HTTP API (PEM)."),
        click.Option(["--tls-key"], type=click.Path(path_type=Path), help="Its private key (PEM)."),
        click.Option(
            ["--tls-client-ca"], type=click.Path(path_type=Path), help="Clients need a certificate signed by these."
        ),
        click.Option(
            ["--tokenizer", "tokenizers"],
            multiple=True,
            help="Tokenizer of text prompts: remote (an engine), mock or hf:PATH; MODEL=… for one model; repeatable.",
        ),
        click.Option(["--log-level"], default="info", help="debug, info, warning or error."),
    ]


def _run(values: dict[str, Any], fronts: Sequence[FrontRequest]) -> int:
    values["namespaces"], values["tokenizers"] = tuple(values["namespaces"]), tuple(values["tokenizers"])
    values["engine_api_key"] = read_api_key(values.pop("engine_api_key"), values.pop("engine_api_key_file"))
    debug_file = values.pop("debug_token_file")
    values["debug_token"] = None if debug_file is None else read_secret("--debug-token-file", debug_file)
    config = IndexerConfig.parse(values)
    configure_logging(config.log_level)
    from kvsync_indexer.service.runner import run  # imported here, so that a wrong flag is answered at once

    return run(config, fronts)


def build_command(
    fronts: Sequence[Front], run: Callable[[dict[str, Any], Sequence[FrontRequest]], int] = _run
) -> click.Command:
    """The command, with the flags of `fronts` next to its own. Its result is the exit code."""
    added = [(front, list(front.options())) for front in fronts]

    def callback(**values: Any) -> int:  # noqa: ANN401
        requests = [
            FrontRequest(front, {str(option.name): values.pop(str(option.name)) for option in options})
            for front, options in added
        ]
        return run(values, requests)

    return click.Command(
        PROGRAM,
        callback=callback,
        params=[*_options(), *(option for _, options in added for option in options)],
        help="Follow KV event streams and answer who holds how much of a prompt.",
        context_settings=_SETTINGS,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns 0 after SIGTERM, 130 after Ctrl-C, and 2 if a flag or a file cannot be used."""
    try:
        command = build_command(installed_fronts())
        code = command.main(args=arguments, prog_name=PROGRAM, standalone_mode=False)
    except click.NoSuchOption as error:
        return _refuse(_missing_front(error.option_name) or error.format_message())
    except click.ClickException as error:
        return _refuse(error.format_message())
    except IndexerError as error:
        return _refuse(str(error))
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return int(code or 0)


def _missing_front(flag: str) -> str | None:
    package = package_of_flag(flag)
    return f"{flag}: needs the package {package}, which is not installed here" if package else None


def _refuse(problem: str) -> int:
    print(f"{PROGRAM}: {' '.join(problem.split())}", file=sys.stderr)
    return USAGE_ERROR


if __name__ == "__main__":
    sys.exit(main())
