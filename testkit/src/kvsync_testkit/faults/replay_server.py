"""The replay server at the other end of a path, and what the index hears of the path."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kvsync_testkit.faults.network import Path

LATENCY_S = 0.001
"""Seconds from one end of the path to the other."""


class Listener(Protocol):
    """The index's end of the path."""

    def on_connected(self, link: int) -> None:
        """The handshake is done."""

    def on_disconnected(self, link: int) -> None:
        """The connection ended."""

    def on_messages(self, link: int, messages: Sequence[tuple[int, bytes]]) -> None:
        """One read of the event socket: publications, (sequence number, payload)."""

    def on_bad_frame(self, link: int) -> None:
        """A message that is no publication."""

    def on_item(self, attempt: int, seq: int, payload: bytes) -> None:
        """A replayed batch."""

    def on_end(self, attempt: int) -> None:
        """The end marker."""

    def on_refused(self, attempt: int) -> None:
        """The replay socket failed."""


class ReplayServer:
    """Answers the requests of one index, as truthfully as the path's knobs allow."""

    def __init__(self, path: "Path") -> None:
        self._path = path
        self._attempt = -1

    def open(self, attempt: int, start: int) -> None:
        """The index requests a replay on a fresh socket."""
        self._attempt = attempt
        knobs, rng = self._path.knobs, self._path.rng
        if rng.random() < knobs.replay_refused:
            self._path.time.call_later(LATENCY_S, lambda: self._answer(attempt, lambda to: to.on_refused(attempt)))
        elif not (knobs.partition or knobs.stall or rng.random() < knobs.replay_silent):
            # vLLM serves replays between two reads of its queue, up to 0.1 s late.
            self._path.time.call_later(LATENCY_S + rng.choice((0.0, 0.02, 0.1)), lambda: self._serve(attempt, start))

    def close(self) -> None:
        """The index closes its replay socket."""
        self._attempt = -1

    def _serve(self, attempt: int, start: int) -> None:
        path, knobs, rng = self._path, self._path.knobs, self._path.rng
        if not path.up or knobs.partition:
            return
        other = path.previous if path.previous is not None and rng.random() < knobs.replay_other else None
        items = [item for item in (other or path.process).buffer if item[0] >= start]
        ends = True
        if rng.random() < knobs.replay_truncated:
            items, ends = items[: len(items) // 2], False
        items = self._disturbed(items)
        step = 0.1 if knobs.replay_slow and rng.random() < knobs.replay_slow else 0.0002
        arrive = path.time.now + LATENCY_S + (0.2 if knobs.delay else 0.0)
        for seq, payload in items:
            arrive += step
            path.time.call_at(arrive, partial(self._answer, attempt, partial(_item, attempt, seq, payload)))
        if ends:
            path.time.call_at(arrive + step, lambda: self._answer(attempt, lambda to: to.on_end(attempt)))

    def _disturbed(self, items: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """Return the items as a faulty server sends them."""
        knobs, rng = self._path.knobs, self._path.rng
        if rng.random() < knobs.replay_skipping and len(items) > 2:
            gap = rng.randrange(1, len(items) - 1)
            items = items[:gap] + items[gap + rng.randint(1, 3) :]
        if rng.random() < knobs.replay_holes:
            items = [item for item in items if rng.random() > 0.2]
        if rng.random() < knobs.replay_shuffled:
            rng.shuffle(items)
        if rng.random() < knobs.replay_twice:
            items = [item for item in items for _ in range(2)]
        if rng.random() < knobs.replay_empty:
            items = []
        return items

    def _answer(self, attempt: int, call: Callable[[Listener], None]) -> None:
        listener = self._path.listener
        if self._attempt == attempt and listener is not None and not self._path.knobs.partition:
            self._path.heard_s = self._path.time.now
            call(listener)


def _item(attempt: int, seq: int, payload: bytes, to: Listener) -> None:
    to.on_item(attempt, seq, payload)
