"""`kvsync-indexer`: flags to configuration, one line for what is wrong with them, then the service."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from kvsync_indexer.config import IndexerConfig
from kvsync_indexer.errors import IndexerError
from kvsync_indexer.logs import configure_logging

USAGE_ERROR = 2


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110})
@click.option("--host", default="0.0.0.0", help="Address to listen on.")
@click.option("--port", type=int, default=8090, help="HTTP port of the index.")
@click.option("--publishers", type=click.Path(path_type=Path), help="YAML list of publishers; followed for changes.")
@click.option("--discover", help="Find publishers: kubernetes.")
@click.option("--selector", default="kvsync.dev/kv-events=true", help="Label selector of engine pods.")
@click.option("--namespace", "namespaces", multiple=True, help="Namespace to look in; may be repeated; '*' for all.")
@click.option("--core", default="auto", help="Index core: auto, python or native.")
@click.option("--trust", default="live", help="live: match live publishers only; suspect: also those in doubt.")
@click.option("--topic", default="", help="Subscription prefix where a publisher names none.")
@click.option("--stale-after", "stale_after_s", default="10s", help="Silence after which a publisher is stale.")
@click.option("--replay-timeout", "replay_timeout_s", default="2s", help="Longest silence of a replay server.")
@click.option("--audit-interval", "audit_interval_s", default="0", help="Audit all publishers this often; 0: never.")
@click.option("--max-blocks", type=int, default=8_000_000, help="Resident blocks one publisher may have.")
@click.option("--heartbeats/--no-heartbeats", default=True, help="ZMQ heartbeats (off for peers that ignore them).")
@click.option("--snapshot-dir", type=click.Path(path_type=Path), help="Directory for periodic snapshots.")
@click.option("--snapshot-interval", "snapshot_interval_s", default="30s", help="How often to write one.")
@click.option("--bootstrap-from", help="URL of a running index to take a snapshot from at start.")
@click.option("--router-port", type=int, help="Serve the router on this port, in this process.")
@click.option("--router-policy", default="kv", help="kv, least_request, round_robin or random.")
@click.option("--router-seed", type=int, default=0, help="Seed of the router's tie-breaks.")
@click.option("--log-level", default="info", help="debug, info, warning or error.")
def command(**values: Any) -> int:  # noqa: ANN401
    """Follow KV event streams and answer who holds how much of a prompt."""
    values["namespaces"] = tuple(values["namespaces"])
    config = IndexerConfig.parse(values)
    configure_logging(config.log_level)
    from kvsync_indexer.service.runner import run  # here, so that a wrong flag is answered at once

    return run(config)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. 0 after SIGTERM, 130 after Ctrl-C, 2 for what the caller must change."""
    try:
        code = command.main(args=arguments, prog_name="kvsync-indexer", standalone_mode=False)
    except click.ClickException as error:
        return _refuse(error.format_message())
    except IndexerError as error:
        return _refuse(str(error))
    except (click.Abort, KeyboardInterrupt):
        return 130
    return int(code or 0)


def _refuse(problem: str) -> int:
    print(f"kvsync-indexer: {' '.join(problem.split())}", file=sys.stderr)
    return USAGE_ERROR


if __name__ == "__main__":
    sys.exit(main())
