"""What the commands share that put one question to a running index: which index, and an event loop for the question."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import click

from kvsync.addresses import check_http_url
from kvsync.errors import KvsyncError
from kvsync.local import detached_run
from kvsync.local.addresses import INDEX_PORT
from kvsync_indexer.client import AsyncIndexClient
from kvsync_indexer.client.calls import TIMEOUT_S
from kvsync_indexer.engine_keys import read_secret
from kvsync_indexer.errors import ConfigError

DEFAULT_INDEX = f"http://127.0.0.1:{INDEX_PORT}"
Answer = TypeVar("Answer")
_META = "kvsync.index"


def index_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options `--index URL` and `--token-file FILE` to a command."""
    text = "Index to ask [default: that of the newest run of up or demo --keep, else port 8090 of this machine]."
    token = click.option(
        "--token-file",
        type=click.Path(path_type=Path),
        envvar="KVSYNC_TOKEN_FILE",
        expose_value=False,
        callback=_read_token,
        help="File with the bearer token of the index (or KVSYNC_TOKEN_FILE).",
    )
    return click.option("--index", "index_url", metavar="URL", help=text)(token(command))


def _read_token(context: click.Context, _param: click.Parameter, file: Path | None) -> None:
    try:
        context.meta[_META] = None if file is None else read_secret("--token-file", file)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None


def find_index(index_url: str | None) -> str:
    """The URL of the index: the one given, else that of the newest run, else the default port of this machine.

    If several runs have an index, a line on stderr says which one is asked. Raises UsageProblemError for a bad URL.
    """
    if index_url is not None:
        return check_http_url(index_url, "--index")
    found = [run for run in detached_run.find_all() if run.index_url is not None]
    if not found:
        return DEFAULT_INDEX
    if len(found) > 1:
        click.echo(f"asking the newest of {len(found)} runs: {found[0].describe()}", err=True)
    return found[0].index_url or DEFAULT_INDEX


def ask(
    index_url: str | None, question: Callable[[AsyncIndexClient], Awaitable[Answer]], timeout_s: float = TIMEOUT_S
) -> Answer:
    """Put one question to the index. Raises UsageProblemError, and IndexClientError if there is no answer."""

    async def put(indexes: Sequence[AsyncIndexClient]) -> Answer:
        return await question(indexes[0])

    return ask_all([find_index(index_url)], put, timeout_s)


def ask_all(
    urls: Sequence[str],
    question: Callable[[Sequence[AsyncIndexClient]], Awaitable[Answer]],
    timeout_s: float = TIMEOUT_S,
) -> Answer:
    """Put one question to all of these indexes, at URLs that were checked. Raises IndexClientError."""
    token = click.get_current_context().meta.get(_META)

    async def asked() -> Answer:
        async with contextlib.AsyncExitStack() as stack:
            clients = [AsyncIndexClient(url, token=token, timeout_s=timeout_s) for url in urls]
            return await question([await stack.enter_async_context(client) for client in clients])

    return asyncio.run(asked())


async def choose_model(index: AsyncIndexClient, model: str | None) -> str:
    """The given model, or else the only one that the index follows. Raises KvsyncError if there is not exactly one."""
    if model is not None:
        return model
    models = sorted({row.model for row in await index.publishers()})
    if len(models) == 1:
        return models[0]
    if not models:
        raise KvsyncError(f"index {index.url} follows no publisher")
    raise KvsyncError(f"index {index.url} follows {len(models)} models; choose with --model: {', '.join(models)}")
