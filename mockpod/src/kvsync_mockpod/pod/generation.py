"""A request in flight, and the mailbox through which its HTTP handler receives the tokens.

A handler may wait for several generations at once (`n`, several prompts). They share one mailbox, so the handler wakes
once per step regardless of the number of tokens. A mailbox never blocks the engine; its size is bounded by the number
of tokens that its requests may generate.
"""

import asyncio
from dataclasses import dataclass, field

from kvsync_mockpod.engine import Request
from kvsync_mockpod.text import Answer


@dataclass(slots=True, eq=False)
class LiveRequest(Request):
    """An engine request together with its planned answer."""

    answer: Answer = field(default_factory=lambda: Answer(0, 1, False))


class Mailbox:
    """Generations put tokens here and one handler takes them."""

    __slots__ = ("_items", "_waiter", "final_only")

    def __init__(self, *, final_only: bool = False) -> None:
        self._items: list[tuple[Generation, list[int], bool]] = []
        self._waiter: asyncio.Future[None] | None = None
        self.final_only = final_only
        """Wake the handler for finished generations only, because it neither streams nor checks stop strings."""

    def put(self, generation: "Generation", tokens: list[int], *, final: bool) -> None:
        """Add tokens of a generation; `final` marks its last ones. Called by the driver."""
        self._items.append((generation, tokens, final))
        if final or not self.final_only:
            self.wake()

    def wake(self) -> None:
        """Wake the handler, whether or not there are tokens."""
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    async def take(self) -> list[tuple["Generation", list[int], bool]]:
        """Everything added since the last call, as (generation, tokens, final); waits if there is nothing."""
        if not self._items:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        items, self._items = self._items, []
        return items


class Generation:
    """One engine request as the HTTP side sees it. Its times are for the metrics, in monotonic seconds."""

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
