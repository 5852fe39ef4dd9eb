"""A request inside the engine: its tokens so far, how far they are computed, and the blocks it holds."""

from enum import Enum

from kvsync_mockpod.engine.api import FinishReason, Request, RequestOutput
from kvsync_mockpod.engine.pool import BlockTable
from kvsync_mockpod.engine.tiers import OnboardHandle


class Status(Enum):
    """Where a sequence is; finished ones carry a finish reason and are in no queue."""

    WAITING = "waiting"
    PARKED = "parked"
    """Holds blocks and waits for a load from a lower tier, or for room after one."""
    RUNNING = "running"
    PREEMPTED = "preempted"
    FINISHED = "finished"


class Sequence:
    """Mutable state of one request. Token counts follow vLLM's names where they mean the same."""

    __slots__ = (
        "__weakref__",
        "arrival",
        "cached_tokens",
        "computed",
        "drop_stale",
        "hashes",
        "id",
        "in_flight",
        "joined",
        "last_token_s",
        "limit",
        "loading",
        "order",
        "output",
        "placeholders",
        "preemptions",
        "prefilling",
        "prompt_len",
        "request",
        "stale",
        "status",
        "stops",
        "table",
        "ticket",
        "total",
    )

    def __init__(self, request: Request, *, limit: int, stops: frozenset[int], ticket: int) -> None:
        self.request = request
        self.id = request.request_id
        self.ticket = ticket
        self.arrival = request.arrival_s
        self.prompt_len = len(request.prompt_token_ids)
        self.limit = limit
        """Most output tokens: `max_tokens`, clipped to what `max_model_len` leaves."""
        self.stops = stops
        """Token ids that end the request, EOS included."""
        self.output: list[int] = []
        self.total = self.prompt_len
        """Known tokens: prompt and output."""
        self.computed = 0
        """Tokens scheduled so far, in flight or done."""
        self.in_flight = 0
        """Tokens scheduled whose output was not taken yet."""
        self.placeholders = 0
        """Output tokens in flight (asynchronous scheduling)."""
        self.stale = 0
        """Tokens in flight when the sequence was preempted: their output is delivered but advances nothing."""
        self.drop_stale = False
        self.prefilling = False
        """The last scheduled chunk did not reach the end of the known tokens."""
        self.order = 0
        """Position among the running: larger came later."""
        self.joined = 0
        """Step since which its counters are to be brought up to date (`lockstep.py`)."""
        self.last_token_s = 0.0
        self.status = Status.WAITING
        self.hashes: list[bytes] = []
        """Hashes of the first full blocks; the identity extends them when needed."""
        self.table = BlockTable()
        self.preemptions = 0
        self.cached_tokens = -1
        self.loading: OnboardHandle | None = None
        """Blocks on their way from a lower tier; the sequence holds their device slots."""

    def known_hashes(self) -> list[bytes]:
        """`hashes`, begun with what the request brought along: not before it is looked at, so that waiting is cheap."""
        if not self.hashes and self.request.block_hashes is not None:
            self.hashes += self.request.block_hashes
        return self.hashes

    def tokens(self, start: int, stop: int) -> list[int]:
        """Token ids `[start, stop)` of prompt and output."""
        n = self.prompt_len
        if stop <= n:
            part = self.request.prompt_token_ids[start:stop]
            return part if isinstance(part, list) else list(part)
        if start >= n:
            return self.output[start - n : stop - n]
        return [*self.request.prompt_token_ids[start:n], *self.output[: stop - n]]

    def make_output(self, tokens: list[int], reason: FinishReason | None, *, error: str | None = None) -> RequestOutput:
        """What one step brought for this request: new tokens, or why it ended."""
        stop = tokens[-1] if reason == "stop" and tokens and tokens[-1] in self.request.stop_token_ids else None
        return RequestOutput(self.id, tokens, reason, max(self.cached_tokens, 0), stop, error, self.preemptions)
