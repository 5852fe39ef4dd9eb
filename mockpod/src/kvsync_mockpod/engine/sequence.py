"""A request inside the engine: its known tokens, how many of them are computed, and the blocks that it holds."""

from enum import Enum

from kvsync_mockpod.engine.api import FinishReason, Request, RequestOutput
from kvsync_mockpod.engine.pool import BlockTable
from kvsync_mockpod.engine.tiers import OnboardHandle


class Status(Enum):
    """State of a sequence; a finished sequence is in no queue."""

    WAITING = "waiting"
    PARKED = "parked"
    """Waiting for a load from a lower tier, or for free blocks after one, while holding blocks."""
    RUNNING = "running"
    PREEMPTED = "preempted"
    FINISHED = "finished"


class Sequence:
    """Mutable state of one request. Token counts are named as in vLLM where they have the same meaning."""

    __slots__ = (
        "__weakref__",
        "arrival",
        "cached_tokens",
        "computed",
        "drop_stale",
        "hashes",
        "id",
        "in_flight",
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
        "synced_tick",
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
        """Maximum number of output tokens: `max_tokens`, limited to what `max_model_len` leaves."""
        self.stops = stops
        """Token ids that end the request, including EOS."""
        self.output: list[int] = []
        self.total = self.prompt_len
        """Known tokens: prompt and output."""
        self.computed = 0
        """Tokens scheduled so far, whether in flight or done."""
        self.in_flight = 0
        """Scheduled tokens whose output has not been taken yet."""
        self.placeholders = 0
        """Output tokens in flight (asynchronous scheduling only)."""
        self.stale = 0
        """Tokens in flight when the sequence was preempted; their output is delivered but advances no counter."""
        self.drop_stale = False
        self.prefilling = False
        """Whether the last scheduled chunk ended before the last known token."""
        self.order = 0
        """Position among the running sequences; later admissions have larger values."""
        self.synced_tick = 0
        """Step up to which the counters are written back while the sequence is decoded in bulk (`bulk_decode.py`)."""
        self.last_token_s = 0.0
        self.status = Status.WAITING
        self.hashes: list[bytes] = []
        """Hashes of the first full blocks; the block identity extends them when they are needed."""
        self.table = BlockTable()
        self.preemptions = 0
        self.cached_tokens = -1
        self.loading: OnboardHandle | None = None
        """The transfer that brings blocks from a lower tier; the sequence holds their device slots."""

    def known_hashes(self) -> list[bytes]:
        """Return `hashes`, which begin with those that the request supplied.

        They are copied on first use, so that queueing a request stays cheap.
        """
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
        """The output of one step for this request: new tokens, or the reason why it ended."""
        stop = tokens[-1] if reason == "stop" and tokens and tokens[-1] in self.request.stop_token_ids else None
        return RequestOutput(self.id, tokens, reason, max(self.cached_tokens, 0), stop, error, self.preemptions)
