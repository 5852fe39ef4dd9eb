"""Compares what the index predicted with what the engine found cached, for reports to the index.

For engines without a debug endpoint, such as real vLLM, these reports are what shows whether the index is right.
"""

from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias

from kvsync_indexer.api import PredictionReport
from kvsync_router.decisions.endpoints import Endpoint
from kvsync_router.decisions.usage import Usage, UsageReader
from kvsync_router.errors import UsageUnreadableError

Outcome: TypeAlias = Literal["reported", "no_usage", "unreadable", "dropped", "failed"]
CountOutcome: TypeAlias = Callable[[Outcome], None]
Grant: TypeAlias = Callable[[str], None]


class PredictionSink(Protocol):
    """Takes reports. It never blocks and never raises."""

    wanted: bool
    """False: reports have no effect, so answers need not be read."""

    def report(self, prediction: PredictionReport) -> None:
        """Take one report."""
        ...

    async def start(self, count: CountOutcome, grant: Grant) -> None:
        """Begin to deliver reports. `count` is called with the outcome of each.

        `grant` is called with the name of a publisher if the index answers that it wants a report of its engine.
        """
        ...

    async def stop(self) -> None:
        """End; reports that have not been delivered are dropped."""
        ...


class AnswerWatch:
    """Reads one answer for which the index made a prediction. A front `add`s every chunk and then calls `done`."""

    def __init__(
        self,
        sink: PredictionSink,
        count: CountOutcome,
        endpoint: Endpoint,
        predicted_tokens: int,
        content_type: str,
        underestimated: Callable[[], None] = lambda: None,
        told: Callable[[Usage | None], None] = lambda _usage: None,
    ) -> None:
        """`underestimated` is called if more tokens were cached than the index predicted.

        `told` is called once the answer is read, with its usage if that says how many tokens were cached.
        """
        self._sink = sink
        self._count = count
        self._endpoint = endpoint
        self._predicted_tokens = predicted_tokens
        self._underestimated = underestimated
        self._told = told
        self._reader = UsageReader(content_type)
        self.add = self._reader.add

    def done(self) -> None:
        """Read the usage and report it. To be called when the client has the whole answer."""
        usage = self._read()
        self._told(usage)
        if usage is None or usage.cached_tokens is None:
            return
        if usage.cached_tokens > self._predicted_tokens:
            self._underestimated()
        self._sink.report(
            PredictionReport(self._endpoint.info.name, self._predicted_tokens, usage.cached_tokens, usage.prompt_tokens)
        )

    def _read(self) -> Usage | None:
        """The usage with its cached tokens, or None after counting why there is none."""
        try:
            usage = self._reader.usage()
        except UsageUnreadableError:
            self._count("unreadable")
            return None
        if usage is None or (usage.cached_tokens is None and not self._endpoint.tells_cached):
            self._count("no_usage")
            return None
        self._endpoint.tells_cached = True
        return Usage(usage.prompt_tokens, usage.cached_tokens or 0)
