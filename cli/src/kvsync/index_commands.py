"""What the commands share that put one question to a running index: which index, and an event loop for the question."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import aiohttp
import click

from kvsync.addresses import check_http_url
from kvsync.errors import KvsyncError
from kvsync.index_client import IndexClient
from kvsync.local import detached_run
from kvsync.local.addresses import INDEX_PORT

DEFAULT_INDEX = f"http://127.0.0.1:{INDEX_PORT}"
Answer = TypeVar("Answer")


def index_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option `--index URL` to a command."""
    text = "Index to ask [default: that of the newest run of up or demo --keep, else port 8090 of this machine]."
    return click.option("--index", "index_url", metavar="URL", help=text)(command)


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


def ask(index_url: str | None, question: Callable[[IndexClient], Awaitable[Answer]]) -> Answer:
    """Put one question to the index. Raises KvsyncError if the index cannot answer it."""
    url = find_index(index_url)

    async def asked() -> Answer:
        async with aiohttp.ClientSession() as session:
            return await question(IndexClient(session, url))

    return asyncio.run(asked())


async def choose_model(index: IndexClient, model: str | None) -> str:
    """The given model, or else the only one that the index follows. Raises KvsyncError if there is not exactly one."""
    if model is not None:
        return model
    models = sorted({row.model for row in await index.publishers()})
    if len(models) == 1:
        return models[0]
    if not models:
        raise KvsyncError(f"index {index.url} follows no publisher")
    raise KvsyncError(f"index {index.url} follows {len(models)} models; choose with --model: {', '.join(models)}")
