"""Measures a live server: prompts of growing length one after the other, then groups of answers decoded together.

Prompts are random token ids of the server's vocabulary, so nothing of them is in its prefix cache. The server should be
idle otherwise.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import aiohttp

from kvsync.calibration.answers import Answer
from kvsync.errors import UnreachableError
from kvsync.replay.limits import ServerLimits
from kvsync_indexer.client.describing import describe

FIRST_ID = 100
LAST_ID = 30_000
"""Token ids are between these, as far as the vocabulary reaches; the first ids of many vocabularies are special."""
ANSWER_S = 300.0
MAX_ERROR_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """What is asked for. Requests of a group run together, groups one after the other."""

    lengths: tuple[int, ...]
    """Prompt lengths of requests that run alone."""
    repeats: int
    groups: tuple[tuple[int, int], ...]
    """Number of requests that run together, and the length of their prompts."""
    output_tokens: int

    def requests(self) -> Iterator[list[tuple[int, int]]]:
        """Groups of (prompt length, output tokens)."""
        for _ in range(self.repeats):
            yield from ([(length, 2)] for length in self.lengths)
        for count, length in self.groups:
            yield [(length, self.output_tokens)] * count


def make_probe(max_model_len: int | None, *, longest: int = 8192, together: int = 16) -> ProbePlan:
    """A plan within the server's length: twelve prompt lengths three times, and groups of up to `together` requests."""
    output = 64
    limit = max(min(longest, (max_model_len or longest) - output - 1), 16)
    shortest = min(64, limit)
    steps = 12
    lengths = sorted({round(shortest * (limit / shortest) ** (step / (steps - 1))) for step in range(steps)})
    counts = [count for count in (1, 2, 4, 8, 16, 32) if count <= together]
    contexts = sorted({shortest, min(512, limit), min(2048, limit)})
    return ProbePlan(tuple(lengths), 3, tuple((count, length) for length in contexts for count in counts), output)


async def run_probe(
    session: aiohttp.ClientSession,
    url: str,
    limits: ServerLimits,
    plan: ProbePlan,
    seed: int,
    on_done: Callable[[int, int], None],
    clock: Callable[[], float] = time.perf_counter,
) -> list[Answer]:
    """Ask for everything in the plan. Raises UnreachableError if a request fails."""
    rng = random.Random(f"probe-{seed}")
    last = min(LAST_ID, limits.vocabulary - 1 if limits.vocabulary is not None else LAST_ID)
    first = min(FIRST_ID, last)
    groups = list(plan.requests())
    answers: list[Answer] = []
    for done, group in enumerate(groups):
        on_done(done, len(groups))
        prompts = [[rng.randint(first, last) for _ in range(length)] for length, _ in group]
        try:
            async with asyncio.timeout(ANSWER_S), asyncio.TaskGroup() as tasks:
                asked = [
                    tasks.create_task(_ask(session, url, limits.model, prompt, output, clock))
                    for prompt, (_, output) in zip(prompts, group, strict=True)
                ]
        except* (aiohttp.ClientError, TimeoutError, OSError) as failures:
            raise UnreachableError(f"{url}: {describe(failures.exceptions[0])}") from None
        answers += [task.result() for task in asked]
    return answers


async def _ask(
    session: aiohttp.ClientSession,
    url: str,
    model: str,
    prompt: list[int],
    output: int,
    clock: Callable[[], float],
) -> Answer:
    body = {"model": model, "prompt": prompt, "max_tokens": output, "ignore_eos": True, "stream": True}
    start = clock()
    async with session.post(f"{url}/v1/completions", json=body) as response:
        if response.status != 200:
            text = (await response.content.read(MAX_ERROR_BYTES)).decode("utf-8", "replace")
            raise aiohttp.ClientError(f"status {response.status}: {' '.join(text.split())[:300]}")
        lines = (line async for line in response.content if line.startswith(b"data: {"))
        times = [clock() async for _ in lines]
    if not times:
        raise aiohttp.ClientError("the answer held no token")
    gaps = tuple(after - before for before, after in pairwise(times))
    return Answer(start, len(prompt), times[0] - start, gaps)
