"""What the commands share that put one question to a running index: which index, and an event loop for the question."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import aiohttp
import click

from kvsync.errors import KvsyncError
from kvsync.index_client import IndexClient
from kvsync.local import detached_run
from kvsync.local.addresses import INDEX_PORT

DEFAULT_INDEX = f"http://127.0.0.1:{INDEX_PORT}"
Answer = TypeVar("Answer")


def index_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option `--index URL` to a command."""
    text = "Index to ask [default: that of a demo kept in out/demo, else the one on this machine]."
    return click.option("--index", "index_url", metavar="URL", help=text)(command)


def find_index(index_url: str | None) -> str:
    """The URL of the index: the one given, else that of a demo left running, else the default port of this machine."""
    if index_url is not None:
        return index_url if "://" in index_url else f"http://{index_url}"
    run = detached_run.find(detached_run.DEFAULT_FOLDER)
    return run.index_url if run is not None else DEFAULT_INDEX


def ask(index_url: str | None, question: Callable[[IndexClient], Awaitable[Answer]]) -> Answer:
    """Put one question to the index. Raises KvsyncError if the index cannot answer it."""

    async def asked() -> Answer:
        async with aiohttp.ClientSession() as session:
            return await question(IndexClient(session, find_index(index_url)))

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
