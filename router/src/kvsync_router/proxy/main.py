"""`kvsync-router`: the proxy in a process of its own, for engines that an index or a publishers file lists."""

import sys
from pathlib import Path
from typing import Any

import click
import structlog

from kvsync_indexer.errors import ConfigError, ListenError
from kvsync_indexer.logs import configure_logging
from kvsync_indexer.serving import HttpServer, event_loop_runner, listen, serve_until_signalled
from kvsync_router.config import RouterConfig
from kvsync_router.errors import RouterConfigError
from kvsync_router.flags import read_secrets, setting_flags, settings_of
from kvsync_router.proxy.app import ProxyApp
from kvsync_router.proxy.protocol import ClientProtocol
from kvsync_router.routing import Routing
from kvsync_router.sources.directory import FileDirectory

DEFAULT_PORT = 8080
USAGE_ERROR = 2


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--index-url", metavar="URL", help="Index to ask for matches and, without --publishers, for endpoints.")
@click.option("--publishers", type=click.Path(path_type=Path), help="Publishers file that lists the endpoints.")
@click.option("--host", default="0.0.0.0", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=DEFAULT_PORT, show_default=True)
@click.option("--engine-api-key", envvar="KVSYNC_ENGINE_API_KEY", help="Key for the router's own questions to engines.")
@click.option("--engine-api-key-file", type=click.Path(path_type=Path), help="File that holds this key instead.")
@click.option("--index-token-file", type=click.Path(path_type=Path), help="File with the bearer token of the index.")
@click.option("--index-ca-file", type=click.Path(path_type=Path), help="Certificates that may sign the index's.")
def main(index_url: str | None, publishers: Path | None, host: str, port: int, **values: Any) -> None:  # noqa: ANN401
    """Route OpenAI requests to the engine that already holds most of the prompt."""
    configure_logging("info")
    try:
        config = RouterConfig.parse({**settings_of(values), **read_secrets(values)})
        routing = _routing(config, index_url, publishers)
        bound = listen(host, port)
    except (RouterConfigError, ConfigError, ListenError) as error:
        click.echo(f"kvsync-router: {error}", err=True)
        sys.exit(USAGE_ERROR)
    server = HttpServer(ProxyApp(routing), bound, http=ClientProtocol)
    address = ":".join(str(part) for part in bound.getsockname()[:2])
    structlog.get_logger("kvsync_router").info("router_listens", address=address)
    with event_loop_runner() as runner:
        sys.exit(runner.run(serve_until_signalled([server])))


main.params.extend(setting_flags())


def _routing(config: RouterConfig, index_url: str | None, publishers: Path | None) -> Routing:
    if index_url is None and publishers is None:
        raise RouterConfigError("give --index-url, --publishers, or both: the router has no endpoints without")
    directory = None
    if publishers is not None:
        directory = FileDirectory(publishers)
        directory.read()
    return Routing.over_http(config, index_url, directory)


if __name__ == "__main__":
    main()
