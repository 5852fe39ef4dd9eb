"""Turns the batches of one publisher into lines of output, without a socket.

`Tail` follows the sequence numbers, and marks gaps and restarts.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import zmq

from kvsync_events import (
    AllBlocksCleared,
    BlockRemoved,
    BlockStored,
    DecodeError,
    Event,
    EventBatch,
    FrameError,
    Hash,
    decode_batch,
)

SHOWN_HASHES = 3


@dataclass(frozen=True, slots=True)
class Line:
    """One line of output.

    `kind` is event, error, gap, restart, empty or connection, and `record` has the values for --json. A line about the
    connection goes to stderr, since it says nothing about the stream.
    """

    kind: str
    text: str
    record: dict[str, object]


class Tail:
    """Follows the sequence numbers of one publisher."""

    def __init__(self) -> None:
        self.next_seq: int | None = None
        self.batches = 0

    def live(self, seq: int, payload: bytes) -> Iterator[Line]:
        """Yield a remark on the sequence if there is one, then the events. An old number counts as a restart."""
        expected = self.next_seq
        if expected is not None and seq > expected:
            missing = seq - expected
            text = f"-- gap: {missing} batch{'es' if missing > 1 else ''} missing, seq {expected}..{seq - 1}"
            yield Line("gap", text, {"first": expected, "last": seq - 1})
        elif expected is not None and seq < expected:
            yield Line("restart", f"-- restart: seq {seq} after {expected - 1}", {"seq": seq, "after": expected - 1})
        self.next_seq = seq + 1
        yield from self._events(seq, payload, "live")

    def replayed(self, seq: int, payload: bytes) -> Iterator[Line]:
        """Yield the events of a replayed batch. Its number never moves the live sequence back."""
        self.next_seq = max(self.next_seq or 0, seq + 1)
        yield from self._events(seq, payload, "replay")

    def bad_frames(self, error: FrameError) -> Line:
        """Return the line for a message that is not a publication."""
        return Line("error", f"-- not a publication: {error}", {"error": str(error)})

    def _events(self, seq: int, payload: bytes, source: str) -> Iterator[Line]:
        self.batches += 1
        try:
            batch = decode_batch(payload)
        except DecodeError as error:
            yield Line("error", f"seq {seq}: cannot be decoded: {error}", {"seq": seq, "error": str(error)})
            return
        head = f"{_clock_time(batch.ts)} seq {seq}{' replay' if source == 'replay' else ''}"
        if batch.data_parallel_rank:
            head += f" rank {batch.data_parallel_rank}"
        common: dict[str, object] = {"seq": seq, "ts": batch.ts, "rank": batch.data_parallel_rank, "source": source}
        for event in batch.events:
            yield Line("event", f"{head} {describe(event)}", common | record(event))
        yield from _remarks(head, batch, common)


def _remarks(head: str, batch: EventBatch, common: dict[str, object]) -> Iterator[Line]:
    if batch.unknown_events:
        text = f"{head} -- {batch.unknown_events} events of unknown type"
        yield Line("error", text, common | {"unknown_events": batch.unknown_events})
    elif not batch.events:
        yield Line("empty", f"{head} (no events)", common)


class Connection:
    """Remarks on the connection to a publisher, from the events of a ZMQ socket monitor: one per change."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._state = "new"

    def lines(self, event: int) -> Iterator[Line]:
        """Yield what a monitor event says, if it says something new."""
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED and self._state != "connected":
            yield self._enter("connected", f"connected to {self._endpoint}; waiting for events")
        elif event == zmq.EVENT_DISCONNECTED and self._state == "connected":
            yield self._enter("lost", f"the connection to {self._endpoint} ended; trying again")
        elif event != zmq.EVENT_HANDSHAKE_SUCCEEDED and self._state == "new":
            yield self._enter("refused", f"{self._endpoint} accepts connections, but does not speak ZMQ; trying again")

    def _enter(self, state: str, text: str) -> Line:
        self._state = state
        return Line("connection", f"-- {text}", {"state": state, "endpoint": self._endpoint})


def describe(event: Event) -> str:
    """Return an event as text."""
    if isinstance(event, AllBlocksCleared):
        return "AllBlocksCleared"
    medium = event.medium or "GPU"
    group = "" if event.group_idx is None else f" group {event.group_idx}"
    hashes = _hashes(event.block_hashes)
    if isinstance(event, BlockRemoved):
        return f"BlockRemoved {len(event.block_hashes)} {medium}{group} {hashes}"
    parent = "root" if event.parent_block_hash is None else _hash(event.parent_block_hash)
    lora = f" lora {event.lora_name}" if event.lora_name else ""
    tokens = f"{len(event.token_ids)} tokens"
    return f"BlockStored {len(event.block_hashes)} {medium}{group}{lora} {tokens}, after {parent}: {hashes}"


def record(event: Event) -> dict[str, object]:
    """Return an event as JSON values, with bytes as hex."""
    if isinstance(event, AllBlocksCleared):
        return {"type": "AllBlocksCleared"}
    fields: dict[str, object] = {
        "type": type(event).__name__,
        "block_hashes": [_json_hash(value) for value in event.block_hashes],
        "medium": event.medium,
        "group_idx": event.group_idx,
    }
    if isinstance(event, BlockStored):
        parent = event.parent_block_hash
        fields["parent_block_hash"] = None if parent is None else _json_hash(parent)
        fields["block_size"] = event.block_size
        fields["token_ids"] = list(event.token_ids)
        fields["lora_name"] = event.lora_name
    return fields


def as_json(line: Line) -> str:
    """Return the line as a JSON object."""
    return json.dumps({"kind": line.kind, **line.record})


def _json_hash(value: Hash) -> int | str:
    return value.hex() if isinstance(value, bytes) else value


def _hash(value: Hash) -> str:
    if isinstance(value, bytes):
        return value.hex()[:16]
    return f"{value & (1 << 64) - 1:016x}"


def _hashes(values: list[Hash]) -> str:
    shown = " ".join(_hash(value) for value in values[:SHOWN_HASHES])
    more = len(values) - SHOWN_HASHES
    return f"{shown} +{more}" if more > 0 else shown


def _clock_time(ts: float) -> str:
    try:
        return datetime.fromtimestamp(ts, UTC).strftime("%H:%M:%S.%f")[:-3]
    except (OverflowError, ValueError, OSError):
        return f"ts {ts}"
