"""A core that writes down what is done to one publisher's blocks, so that checkers need not believe the follower."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kvsync_events import DecodeError
from kvsync_indexer.core import Applied, CoreError, IndexCore
from kvsync_testkit.checks import AppliedBatch, Forgotten, TrustSample
from kvsync_testkit.clock import VirtualClock
from kvsync_testkit.faults.dying import SurvivingMark
from kvsync_testkit.faults.engine import ModelProcess, Published

_PLACE = re.compile(r"batch (\d+) of ")


@dataclass(slots=True)
class IndexHistory:
    """What the index did for one publisher. Times are virtual seconds."""

    applied: list[AppliedBatch | Forgotten] = field(default_factory=list)
    last_payload: bytes | None = None
    """The payload applied last, None if the blocks were dropped since."""
    evicted: set[int] = field(default_factory=set)
    """Different blocks that were evicted since the engine last showed that it holds, or held, unknown blocks."""
    cleared: bool = False
    """One of those batches cleared the cache."""
    assumed_complete: bool = False
    """The follower believes that the cache has turned over, which is a rule of thumb."""
    trust: list[TrustSample] = field(default_factory=list)
    states: list[tuple[float, str, str]] = field(default_factory=list)
    """(time, state, reason) of every transition."""
    after_removal: list[tuple[float, str]] = field(default_factory=list)
    replays: list[float] = field(default_factory=list)
    """When replays were requested."""
    most_buffered: int = 0

    def forget(self, at_s: float, publisher: str) -> None:
        """The blocks are gone."""
        self.applied.append(Forgotten(at_s, publisher))
        self.last_payload = None
        self.evicted.clear()
        self.cleared = self.assumed_complete = False


class RecordingCore:
    """Hands everything on to the real core. `before_change` is called before the publisher's blocks change."""

    if TYPE_CHECKING:  # the rest of `IndexCore`, which `__getattr__` finds in the real one
        add_publisher: Any
        apply_batch: Any
        digest: Any
        dump: Any
        match: Any
        match_keys: Any
        name: Any
        publishers: Any
        query_keys: Any
        restore: Any
        seed: Any
        set_last_copy_only: Any
        sizes: Any
        snapshot: Any
        snapshot_part: Any
        stats: Any

    def __init__(
        self,
        core: IndexCore,
        history: IndexHistory,
        time: VirtualClock,
        identify: Callable[[bytes], tuple[ModelProcess, Published]],
        before_change: Callable[[], None],
        mark: SurvivingMark,
    ) -> None:
        self.batches = 0
        """Batches applied through this core, however often the blocks were dropped."""
        self._core = core
        self._history = history
        self._time = time
        self._identify = identify
        self._before_change = before_change
        self._mark = mark

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever the core has
        return getattr(self._core, name)

    def apply(self, publisher: str, payload: bytes) -> Applied:
        """Apply one batch and record it."""
        self._before_change()
        self._live_through([payload])
        applied = self._core.apply(publisher, payload)
        self._record(publisher, payload)
        self._look_for_unknown_blocks(publisher, applied)
        return applied

    def apply_many(self, publisher: str, payloads: Sequence[bytes], budget: int | None = None) -> Applied:
        """Apply a run and record the batches before the first that was refused, whose place the core's error names."""
        self._before_change()
        self._live_through(payloads)
        try:
            applied = self._core.apply_many(publisher, payloads, budget)
        except (DecodeError, CoreError) as error:
            place = _PLACE.match(str(error))
            if place is None:
                raise AssertionError(f"the core does not say which batch it refused: {error}") from error
            for payload in payloads[: int(place[1]) - 1]:
                self._record(publisher, payload)
            raise
        for payload in payloads[: applied.payloads]:
            self._record(publisher, payload)
        self._look_for_unknown_blocks(publisher, applied)
        return applied

    def clear_publisher(self, publisher: str) -> int:
        """Drop the blocks and record it."""
        self._before_change()
        self._history.forget(self._time.now, publisher)
        return self._core.clear_publisher(publisher)

    def remove_publisher(self, publisher: str) -> int:
        """Forget the publisher and record it."""
        self._before_change()
        self._history.forget(self._time.now, publisher)
        return self._core.remove_publisher(publisher)

    def _live_through(self, payloads: Sequence[bytes]) -> None:
        """End the process if one of the payloads is lethal."""
        if not self._mark.lethal.isdisjoint(payloads):
            self._mark.die()

    def _look_for_unknown_blocks(self, publisher: str, applied: Applied) -> None:
        if applied.unknown_removed or self._core.sizes(publisher)[1]:
            self._history.evicted.clear()

    def _record(self, publisher: str, payload: bytes) -> None:
        process, published = self._identify(payload)
        history = self._history
        history.applied.append(AppliedBatch(self._time.now, publisher, process.name, published.seq))
        history.last_payload = payload
        history.evicted.update(published.removed)
        history.cleared = history.cleared or published.cleared
        self.batches += 1
