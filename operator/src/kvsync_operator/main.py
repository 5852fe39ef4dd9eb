"""The command `kvsync-operator`."""

import asyncio
import logging
import sys

import click
import structlog

from kvsync_operator.client import load_api_client
from kvsync_operator.errors import ConfigError
from kvsync_operator.running import run_operator
from kvsync_operator.settings import build_settings

_LEVELS = ("debug", "info", "warning", "error")


def configure_logging(level: str) -> None:
    """Log JSON lines in a pod and readable lines on a terminal; libraries log only warnings unless `level` is debug."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for noisy in ("kopf", "urllib3", "kubernetes", "aiohttp"):
        logging.getLogger(noisy).setLevel(logging.DEBUG if level == "debug" else logging.WARNING)


@click.command(context_settings={"auto_envvar_prefix": "KVSYNC_OPERATOR", "help_option_names": ["-h", "--help"]})
@click.option("--namespace", "namespaces", multiple=True, metavar="NAME", help="Serve this namespace. Can be repeated.")
@click.option("--all-namespaces", is_flag=True, help="Serve the whole cluster.")
@click.option(
    "--cross-namespace",
    multiple=True,
    metavar="INDEX=PODS",
    help="Let PrefixIndexes of one namespace follow the pods of another; * is every namespace. Can be repeated.",
)
@click.option("--mockpod-image", metavar="IMAGE", help="Image of engine pods whose resource names none.")
@click.option("--indexer-image", metavar="IMAGE", help="Image of index pods whose resource names none.")
@click.option("--resync-s", type=float, metavar="SECONDS", help="How often every object is applied again.")
@click.option("--sync-poll-s", type=float, metavar="SECONDS", help="How often an index is asked for its publishers.")
@click.option("--audit-s", type=float, metavar="SECONDS", help="How often watches are checked against a list.")
@click.option("--write-slots", type=int, metavar="N", help="Number of concurrent API requests.")
@click.option("--request-timeout-s", type=float, metavar="SECONDS", help="Longest duration of one API request.")
@click.option("--stuck-after-s", type=float, metavar="SECONDS", help="Liveness fails if a pass takes longer.")
@click.option("--http-host", metavar="ADDRESS", help="Address to serve /healthz, /readyz and /metrics on.")
@click.option("--http-port", type=int, metavar="PORT", help="Port to serve /healthz, /readyz and /metrics on.")
@click.option("--log-level", type=click.Choice(_LEVELS), default="info", show_default=True, help="Lowest level logged.")
@click.version_option(package_name="kvsync-operator")
def main(log_level: str, all_namespaces: bool, namespaces: tuple[str, ...], **values: object) -> None:
    """Run MockEngine and PrefixIndex resources.

    Every option can also be set in the environment, as KVSYNC_OPERATOR_ followed by its name in capitals.
    The operator serves the cluster in which it runs, otherwise the one that KUBECONFIG names.
    """
    try:
        settings = build_settings(namespaces=namespaces, all_namespaces=all_namespaces, **values)
        api = load_api_client(settings.write_slots)
    except ConfigError as error:
        click.echo(f"kvsync-operator: {error}", err=True)
        raise SystemExit(2) from None
    configure_logging(log_level)
    asyncio.run(run_operator(settings, api))


if __name__ == "__main__":
    main()
