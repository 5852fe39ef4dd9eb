"""The ZMQ messages around a payload: topic and sequence, replay request, replay reply and end marker.

Only lists of frames here, no socket. vLLM's rules (0.33.0): a publication is `[topic, sequence, payload]`; a replay
request is `[empty, start]` and its ROUTER must see exactly three frames (with the identity) or never answers; a reply
is `[empty, sequence, payload]` up to 0.25 and `[empty, topic, sequence, payload]` from 0.26, and the end marker has
sequence -1 and an empty payload (and an empty topic, whatever the publisher's).
"""

from collections.abc import Sequence
from enum import Enum
from typing import Final, Literal, NamedTuple, TypeAlias

from kvsync_events.errors import FrameError
from kvsync_events.wireform import WireForm

END_SEQ: Final = b"\xff" * 8
"""The sequence frame of the end marker: -1 in eight bytes."""


class PubFrame(NamedTuple):
    """One publication."""

    topic: bytes
    seq: int
    payload: bytes


class ReplayItem(NamedTuple):
    """One replayed batch; `topic` is None in the form that carries none."""

    seq: int
    payload: bytes
    topic: bytes | None = None


class ReplayEnd(Enum):
    """The type of REPLAY_END, an enum so that type checkers can narrow on it."""

    REPLAY_END = "end"


REPLAY_END: Final = ReplayEnd.REPLAY_END
ReplayReply: TypeAlias = ReplayItem | Literal[ReplayEnd.REPLAY_END]


def encode_seq(seq: int) -> bytes:
    """A sequence number as its frame, eight bytes big-endian; FrameError outside 0..2^64-1."""
    try:
        return seq.to_bytes(8, "big")
    except OverflowError:
        raise FrameError(f"sequence number {seq} does not fit in eight unsigned bytes") from None


def decode_seq(frame: bytes | memoryview) -> int:
    """The sequence number of a frame; FrameError unless it has eight bytes."""
    if len(frame) != 8:
        raise FrameError(f"a sequence frame has 8 bytes, not {len(frame)}")
    return int.from_bytes(frame, "big")


def pub_frames(topic: str, seq: int, payload: bytes) -> list[bytes]:
    """The message a publisher sends for one batch."""
    return [topic.encode(), encode_seq(seq), payload]


def parse_pub_frames(frames: Sequence[bytes]) -> PubFrame:
    """Read a publication; FrameError unless it has three frames and a sequence of eight bytes."""
    if len(frames) != 3:
        raise FrameError(f"a publication has 3 frames (topic, sequence, payload), not {len(frames)}")
    topic, seq, payload = frames
    return PubFrame(topic, decode_seq(seq), payload)


def replay_request(start_seq: int) -> list[bytes]:
    """What a DEALER sends to have everything from `start_seq` on (a REQ socket adds the empty frame itself)."""
    return [b"", encode_seq(start_seq)]


def parse_replay_request(frames: Sequence[bytes]) -> int:
    """The start of a request as the ROUTER sees it after the identity; FrameError if vLLM would not answer it.

    vLLM reads a start of any length as one big-endian number; so do we, up to eight bytes.
    """
    if len(frames) != 2:
        raise FrameError(f"a replay request has 2 frames after the identity (empty, start), not {len(frames)}")
    if len(frames[1]) > 8:
        raise FrameError(f"the start of a replay request has at most 8 bytes, not {len(frames[1])}")
    return int.from_bytes(frames[1], "big")


def replay_reply(form: WireForm, topic: str, seq: int, payload: bytes) -> list[bytes]:
    """One replayed batch, as the ROUTER sends it after the identity."""
    tail = [encode_seq(seq), payload]
    return [b"", topic.encode(), *tail] if form.replay_topic else [b"", *tail]


def replay_end(form: WireForm, topic: str = "") -> list[bytes]:
    """The end marker, as the ROUTER sends it after the identity; its topic frame is empty whatever the topic."""
    del topic
    return [b"", b"", END_SEQ, b""] if form.replay_topic else [b"", END_SEQ, b""]


def parse_replay_reply(frames: Sequence[bytes]) -> ReplayReply:
    """Read a reply of either form, with the delimiter a DEALER sees or without it; FrameError on anything else.

    The last two frames are always sequence and payload. Three frames whose first is empty may be the old form with a
    delimiter or the new one with an empty topic: both say the same.
    """
    if not 2 <= len(frames) <= 4:
        raise FrameError(f"a replay reply has 2 to 4 frames, not {len(frames)}")
    if len(frames) == 4 and frames[0]:
        raise FrameError("a replay reply of 4 frames starts with an empty one")
    seq_frame, payload = frames[-2], frames[-1]
    if len(seq_frame) != 8:
        raise FrameError(f"the sequence frame of a replay reply has 8 bytes, not {len(seq_frame)}")
    if seq_frame == END_SEQ:
        return REPLAY_END
    topic = frames[-3] if len(frames) == 4 or (len(frames) == 3 and frames[0]) else None
    return ReplayItem(decode_seq(seq_frame), payload, topic)
