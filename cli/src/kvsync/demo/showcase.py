"""Gives a demo that is left running a prompt of words, so that there is something to ask the index for.

The prompts of a trace are token ids, too many for a command line. One prompt of words is sent after the audit.
"""

import asyncio
from typing import Final

import aiohttp

from kvsync_indexer.api import MatchRequest
from kvsync_indexer.client import AsyncIndexClient, IndexClientError

PROMPT: Final = (
    "The capital of France is Paris, the capital of Italy is Rome, the capital of Spain is Madrid, "
    "the capital of Austria is Vienna, and the capital of Portugal is"
)
APPEARS_WITHIN_S = 5.0
POLL_S = 0.05


async def cache_prompt(
    session: aiohttp.ClientSession, router_url: str, index: AsyncIndexClient, model: str
) -> str | None:
    """Send the prompt through the router, and return it once the index answers that an engine holds it.

    Returns None if it does not appear in time; the demo does without it then.
    """
    body = {"model": model, "prompt": PROMPT, "max_tokens": 1}
    try:
        async with session.post(f"{router_url}/v1/completions", json=body) as response:
            await response.read()
        async with asyncio.timeout(APPEARS_WITHIN_S):
            while not await _is_held(index, model):  # noqa: ASYNC110 - the index has nothing to wait for
                await asyncio.sleep(POLL_S)
    except (aiohttp.ClientError, TimeoutError, OSError, IndexClientError):
        return None
    return PROMPT


async def _is_held(index: AsyncIndexClient, model: str) -> bool:
    answer = await index.match(MatchRequest(model, prompt=PROMPT))
    return any(row.matched_blocks for row in answer.matches)
