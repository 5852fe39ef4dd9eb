"""Runs a tokenizer in threads of this process, with a limit of time, of text and of texts that wait.

A thread cannot be ended from outside. So a text that takes too long keeps its thread, the request that asked gets an
error, and the tokenizer is left alone for a while, as an engine is that does not answer.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from kvsync_indexer.errors import IndexerError, TokenizeError
from kvsync_indexer.tokenizing.tokenized import Tokenized
from kvsync_indexer.tokenizing.turns import EngineTurns, patience_s

THREADS: Final = 2
"""Both `tokenizers` and the mock's tokenizer handle about a megabyte per second and thread."""
MOST_WAITING: Final = 64
MOST_BYTES: Final = 16 << 20
"""Longest body that is tokenized here."""
WAIT_S: Final = 0.25
"""Longest time until a thread begins with a text: the time-out of a match."""
_NAME: Final = "local"


class TextEncoder(Protocol):
    """A tokenizer that is called in a thread."""

    def encode(self, body: dict[str, Any]) -> list[int]:
        """The tokens of the body of a `/tokenize` request. Raises RequestError, UnknownPromptError."""
        ...


@dataclass(slots=True, eq=False)
class _Job:
    body: dict[str, Any]
    loop: asyncio.AbstractEventLoop
    answer: "asyncio.Future[list[int]]"
    begun: asyncio.Event = field(default_factory=asyncio.Event)


class LocalTokenizer:
    """One encoder with its threads, which start at the first text and end with the process or with `close`."""

    def __init__(self, encoder: TextEncoder, clock: Callable[[], float]) -> None:
        self._encoder = encoder
        self._clock = clock
        self._turns = EngineTurns()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._waiting = 0

    async def tokens(self, body: dict[str, Any], size_bytes: int) -> Tokenized:
        """Tokens of a body for `/tokenize`, whose JSON has `size_bytes`.

        Raises RequestError, UnknownPromptError, and TokenizeError if there is no answer in time.
        """
        if size_bytes > MOST_BYTES:
            raise TokenizeError(f"a text of {size_bytes} bytes; at most {MOST_BYTES} are tokenized here")
        if self._waiting >= MOST_WAITING:
            raise TokenizeError(f"{MOST_WAITING} texts wait for the tokenizer")
        if not self._turns.order([_NAME], self._clock()):
            raise TokenizeError("the tokenizer was slow a moment ago")
        self._start()
        loop = asyncio.get_running_loop()
        job = _Job(body, loop, loop.create_future())
        self._waiting += 1
        try:
            self._jobs.put(job)
            return Tokenized(await self._answer(job, patience_s(size_bytes)))
        finally:
            self._waiting -= 1

    async def _answer(self, job: _Job, patience: float) -> list[int]:
        """Wait for the answer; only the time in which a thread works on it counts as the tokenizer's."""
        slow: asyncio.TimerHandle | None = None
        try:
            async with asyncio.timeout(WAIT_S):
                await job.begun.wait()
            slow = job.loop.call_later(patience, lambda: self._turns.slow(_NAME, self._clock()))
            async with asyncio.timeout(patience):
                tokens = await job.answer
        except TimeoutError:
            raise TokenizeError("the tokenizer was not done in time") from None
        finally:
            job.answer.cancel()
            if slow is not None:
                slow.cancel()
        self._turns.answered(_NAME)
        return tokens

    def _start(self) -> None:
        while len(self._threads) < THREADS:
            thread = threading.Thread(target=self._work, name="kvsync-tokenizer", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if job.answer.cancelled():
                continue
            try:
                job.loop.call_soon_threadsafe(job.begun.set)
                outcome = self._encode(job.body)
                job.loop.call_soon_threadsafe(_settle, job.answer, outcome)
            except RuntimeError:  # the event loop is closed
                return

    def _encode(self, body: dict[str, Any]) -> list[int] | IndexerError:
        try:
            return self._encoder.encode(body)
        except IndexerError as error:
            return error
        except Exception as error:  # noqa: BLE001  a text must not end the thread
            return TokenizeError(f"the tokenizer failed: {type(error).__name__}: {error}"[:300])

    def close(self) -> None:
        """End the threads, those that work after their texts."""
        for _ in self._threads:
            self._jobs.put(None)
        self._threads.clear()


def _settle(answer: "asyncio.Future[list[int]]", outcome: list[int] | IndexerError) -> None:
    if answer.done():
        return
    if isinstance(outcome, IndexerError):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)
