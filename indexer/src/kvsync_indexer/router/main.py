"""`kvsync-router`: the router alone, in front of engines that an index or a publishers file names."""

import sys
import time
from pathlib import Path

import click

from kvsync_indexer.logs import configure_logging
from kvsync_indexer.router.app import Router, build_router
from kvsync_indexer.router.client import HttpClient
from kvsync_indexer.router.config import RouterConfig
from kvsync_indexer.router.directory import Directory, FileDirectory, HttpDirectory
from kvsync_indexer.router.errors import RouterConfigError
from kvsync_indexer.router.policies import DEFAULT_DECODE_WEIGHT, DEFAULT_PREFILL_WEIGHT, POLICY_NAMES
from kvsync_indexer.router.predicting import HttpPredictions, PredictionSink
from kvsync_indexer.router.scoring import HttpScorer, Scorer
from kvsync_indexer.router.serving import listen, serve

DEFAULT_PORT = 8080


def router_from_flags(config: RouterConfig, index_url: str | None, publishers: Path | None) -> Router:
    """Wire a router to its sources; RouterConfigError where there is none."""
    client = HttpClient(config.connect_timeout_s)
    directory: Directory
    if publishers is not None:
        directory = FileDirectory(publishers)
        directory.read()
    elif index_url is not None:
        directory = HttpDirectory(index_url, client)
    else:
        msg = "give --index-url, --publishers, or both: the router has no endpoints without"
        raise RouterConfigError(msg)
    scorer: Scorer | None = None
    predictions: PredictionSink | None = None
    if index_url is not None:
        scorer = HttpScorer(index_url, client, time.monotonic, config.match_timeout_s, config.index_backoff_s)
        predictions = HttpPredictions(index_url, client, config.report_timeout_s, config.index_backoff_s)
    return build_router(config, directory, scorer, client, predictions=predictions)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--index-url", metavar="URL", help="Index to ask for matches and, without --publishers, for endpoints.")
@click.option("--publishers", type=click.Path(path_type=Path), help="Publishers file that lists the endpoints.")
@click.option("--policy", type=click.Choice(POLICY_NAMES), default="kv", show_default=True)
@click.option("--host", default="0.0.0.0", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=DEFAULT_PORT, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of every random tie-break.")
@click.option("--prefill-weight", type=float, default=DEFAULT_PREFILL_WEIGHT, show_default=True)
@click.option("--decode-weight", type=float, default=DEFAULT_DECODE_WEIGHT, show_default=True)
@click.option("--attempts", type=int, default=3, show_default=True, help="Endpoints tried before the first byte.")
@click.option("--match-timeout", "match_timeout_s", type=float, default=0.25, show_default=True, help="Seconds.")
def main(index_url: str | None, publishers: Path | None, host: str, port: int, **values: object) -> None:
    """Route OpenAI requests to the engine that already holds most of the prompt."""
    configure_logging("info")
    try:
        router = router_from_flags(RouterConfig.parse(values), index_url, publishers)
        bound = listen(host, port)
    except RouterConfigError as error:
        click.echo(f"kvsync-router: {error}", err=True)
        sys.exit(2)
    sys.exit(serve(router.app, bound))


if __name__ == "__main__":
    main()
