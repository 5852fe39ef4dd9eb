"""One request in flight, and the mailbox in which its HTTP handler finds the tokens.

A handler may wait for several generations at once (`n`, several prompts); they share one mailbox, so the
handler wakes once a step whatever the number of tokens. A mailbox never blocks the engine: what a client does
not read is bounded by the tokens its request may generate.
"""

import asyncio
from dataclasses import dataclass, field

from kvsync_mockpod.engine import Request
from kvsync_mockpod.text import Answer


@dataclass(slots=True, eq=False)
class LiveRequest(Request):
    """An engine request that knows its answer."""

    answer: Answer = field(default_factory=lambda: Answer(0, 1, False))


class Mailbox:
    """Where generations put tokens and one handler takes them."""

    __slots__ = ("_items", "_waiter", "final_only")

    def __init__(self, *, final_only: bool = False) -> None:
        self._items: list[tuple[Generation, list[int], bool]] = []
        self._waiter: asyncio.Future[None] | None = None
        self.final_only = final_only
        """Wake the handler for finished generations only (it streams nothing and checks no stop text)."""

    def put(self, generation: "Generation", tokens: list[int], *, final: bool) -> None:
        """Called by the driver; `final` with the last tokens of a generation."""
        self._items.append((generation, tokens, final))
        if final or not self.final_only:
            self.wake()

    def wake(self) -> None:
        """Let the handler look, whether or not there is anything."""
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    async def take(self) -> list[tuple["Generation", list[int], bool]]:
        """Everything that has come since, as (generation, tokens, final); waits when nothing has."""
        if not self._items:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        items, self._items = self._items, []
        return items


class Generation:
    """One engine request seen from the HTTP side, with its times for the metrics (seconds, monotonic)."""

    __slots__ = (
        "arrived_s",
        "cached_tokens",
        "error",
        "finish_reason",
        "first_token_s",
        "index",
        "last_token_s",
        "mailbox",
        "output_tokens",
        "preemptions",
        "prompt_tokens",
        "rank",
        "request",
        "scheduled_s",
        "stop_token_id",
    )

    def __init__(self, request: LiveRequest, rank: int, index: int, mailbox: Mailbox, now: float) -> None:
        self.request = request
        self.rank = rank
        self.index = index
        self.mailbox = mailbox
        self.prompt_tokens = len(request.prompt_token_ids)
        self.output_tokens = 0
        self.cached_tokens = 0
        self.preemptions = 0
        self.finish_reason: str | None = None
        self.stop_token_id: int | None = None
        self.error: str | None = None
        self.arrived_s = now
        self.scheduled_s: float | None = None
        self.first_token_s: float | None = None
        self.last_token_s: float | None = None
