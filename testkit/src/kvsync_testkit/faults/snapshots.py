"""What a snapshot of the simulated index holds, and how a new index resumes from it."""

from collections.abc import Iterable
from dataclasses import dataclass

from kvsync_indexer.core import IndexCore
from kvsync_testkit.faults.index import IndexSide


@dataclass(frozen=True, slots=True)
class SavedStream:
    """Where one publisher's stream stood, and what the checkers knew of it."""

    next_seq: int
    base_seq: int | None
    tail: list[tuple[int, int]]
    epoch: str | None
    incomplete: bool
    last_payload: bytes | None
    assumed_complete: bool


@dataclass(frozen=True, slots=True)
class SavedIndex:
    """The core's state and that of every stream, by publisher."""

    core: bytes
    streams: dict[str, SavedStream]


def save(core: IndexCore, sides: Iterable[IndexSide]) -> SavedIndex:
    """Take a snapshot of now."""
    streams = {}
    for side in sides:
        machine, history, place = side.machine, side.history, side.machine.position
        if place.known and not side.removed:
            streams[side.name] = SavedStream(
                next_seq=place.next_seq,
                base_seq=place.base_seq,
                tail=place.tail(),
                epoch=machine.epoch,
                incomplete=machine.incomplete,
                last_payload=history.last_payload,
                assumed_complete=history.assumed_complete,
            )
    return SavedIndex(core.snapshot(), streams)


def resume(side: IndexSide, saved: SavedStream | None) -> None:
    """Let a new index side continue from a snapshot; blocks of another epoch than the present one are dropped."""
    if saved is None or saved.epoch != side.machine.epoch:
        side.core.clear_publisher(side.name)
        return
    side.history.forget(side.time.now, side.name)
    side.history.last_payload = saved.last_payload
    side.history.assumed_complete = saved.assumed_complete
    side.machine.resume(saved.next_seq, saved.base_seq, saved.tail, incomplete=saved.incomplete)
