"""`kvsync-epp`: the endpoint picker in a process of its own, with the flags of the Gateway API's reference picker."""

import contextlib
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from kvsync_indexer.errors import IndexerError
from kvsync_indexer.logs import configure_logging
from kvsync_indexer.serving import HttpServer, Server, event_loop_runner, listen, serve_until_signalled
from kvsync_router.config import RouterConfig
from kvsync_router.errors import RouterError
from kvsync_router.flags import read_secrets, setting_flags, settings_of
from kvsync_router.picker.endpoints import choose_directory
from kvsync_router.picker.settings import MAX_BODY_BYTES, PROXY_ONLY
from kvsync_router.routing import Routing

PROGRAM: Final = "kvsync-epp"
USAGE_ERROR: Final = 2
INTERRUPTED: Final = 130
_PORT: Final = click.IntRange(0, 65535)


@click.command(
    PROGRAM,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True},
)
@click.option("--index-url", metavar="URL", help="Index to ask for matches, and for endpoints without a list.")
@click.option("--publishers", type=click.Path(path_type=Path), help="Publishers file that lists the endpoints.")
@click.option("--single-address", is_flag=True, help="Name one address only, for ORIGINAL_DST clusters.")
@click.option("--host", default="0.0.0.0", help="Address to listen on.")
@click.option("--grpc-port", type=_PORT, default=9002, help="Port of the external processor.")
@click.option("--grpc-health-port", type=_PORT, default=9003, help="Port of the gRPC health service.")
@click.option("--metrics-port", type=_PORT, default=9090, help="Port of the Prometheus metrics.")
@click.option("--pool-name", help="InferencePool whose pods are the endpoints.")
@click.option("--pool-namespace", help="Namespace of that InferencePool.  [default: own]")
@click.option(
    "--secure-serving",
    type=bool,
    is_flag=False,
    flag_value="true",
    default=True,
    help="Serve the processor with TLS. --no-secure-serving is --secure-serving=false.",
)
@click.option("--no-secure-serving", is_flag=True, hidden=True)
@click.option(
    "--cert-path", type=click.Path(path_type=Path), help="Folder with tls.crt and tls.key.  [default: self-signed]"
)
@click.option("--max-body-bytes", type=int, default=MAX_BODY_BYTES, help="A longer body is placed by load.")
@click.option(
    "--engine-api-key",
    envvar="KVSYNC_ENGINE_API_KEY",
    show_default=False,
    help="Key for the picker's own questions to engines.",
)
@click.option("--engine-api-key-file", type=click.Path(path_type=Path), help="File that holds this key instead.")
@click.option("--index-token-file", type=click.Path(path_type=Path), help="File with the bearer token of the index.")
@click.option("--index-ca-file", type=click.Path(path_type=Path), help="Certificates that may sign the index's.")
def command(**values: Any) -> int:  # noqa: ANN401
    """Pick the engine that already holds most of a prompt, for gateways that ask over ext_proc."""
    configure_logging("info")
    own = {"max_body_bytes": values["max_body_bytes"], **read_secrets(values)}
    config = RouterConfig.parse({**settings_of(values), **own})
    directory = choose_directory(
        values["index_url"], values["publishers"], values["pool_name"], values["pool_namespace"]
    )
    with contextlib.ExitStack() as on_refusal:
        bound = [on_refusal.enter_context(_listen(values, name)) for name in _PORTS]
        from kvsync_router.picker.credentials import server_credentials  # gRPC; a wrong flag is answered before

        secure = values["secure_serving"] and not values["no_secure_serving"]
        credentials = server_credentials(values["cert_path"]) if secure else None
        on_refusal.pop_all()
    with event_loop_runner() as runner:
        routing = Routing.over_http(config, values["index_url"], directory)
        return runner.run(_serve(routing, bound, credentials, single_address=values["single_address"]))


_PORTS: Final = ("grpc_port", "grpc_health_port", "metrics_port")
command.params.extend(setting_flags(without=PROXY_ONLY))


def _listen(values: dict[str, Any], name: str) -> socket.socket:
    try:
        return listen(values["host"], values[name])
    except IndexerError as error:
        raise click.UsageError(f"--{name.replace('_', '-')} {values[name]}: {error}") from None


async def _serve(
    routing: Routing,
    bound: Sequence[socket.socket],
    credentials: Any,  # noqa: ANN401
    *,
    single_address: bool,
) -> int:
    from kvsync_router.picker.server import PickerServer
    from kvsync_router.picker.status import status_app

    grpc_bound, health_bound, metrics_bound = bound
    picker = PickerServer(routing, grpc_bound, health_bound, credentials=credentials, single_address=single_address)
    servers: list[Server] = [picker, HttpServer(status_app(routing, picker), metrics_bound, lifespan="off")]
    return await serve_until_signalled(servers)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns 0 after SIGTERM, 130 after Ctrl-C, and 2 if a flag or a file cannot be used."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it writes lines of its own about every failed handshake
    try:
        code = command.main(args=arguments, prog_name=PROGRAM, standalone_mode=False)
    except click.ClickException as error:
        return _refuse(error.format_message())
    except (RouterError, IndexerError) as error:
        return _refuse(str(error))
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return int(code or 0)


def _refuse(problem: str) -> int:
    print(f"{PROGRAM}: {' '.join(problem.split())}", file=sys.stderr)
    return USAGE_ERROR


if __name__ == "__main__":
    sys.exit(main())
