"""The ZMQ messages around a payload, as lists of frames and without a socket.

vLLM (0.33.0) uses these messages:

- A publication is `[topic, sequence, payload]`.
- A replay request is `[empty, start]`. vLLM's ROUTER socket must see exactly three frames, including the identity;
  otherwise it never answers.
- A reply is `[empty, sequence, payload]` up to 0.25 and `[empty, topic, sequence, payload]` from 0.26 on.
- The end marker is a reply with sequence -1, an empty payload, and an empty topic whatever the publisher's topic is.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Final, Literal, NamedTuple, TypeAlias

from kvsync_events.errors import FrameError
from kvsync_events.wireform import WireForm

END_SEQ: Final = b"\xff" * 8
"""The sequence frame of the end marker, -1 in eight bytes."""


class PubFrame(NamedTuple):
    """A publication."""

    topic: bytes
    seq: int
    payload: bytes


class ReplayItem(NamedTuple):
    """A replayed batch. `topic` is None in the form up to 0.25, which has no topic frame."""

    seq: int
    payload: bytes
    topic: bytes | None = None


class ReplayEnd(Enum):
    """The type of REPLAY_END, an enum so that type checkers can narrow on it."""

    REPLAY_END = "end"


REPLAY_END: Final = ReplayEnd.REPLAY_END
ReplayReply: TypeAlias = ReplayItem | Literal[ReplayEnd.REPLAY_END]


def encode_seq(seq: int) -> bytes:
    """Return a sequence number as eight bytes, big-endian.

    Raises:
        FrameError: the number is not in 0..2^64-1.
    """
    try:
        return seq.to_bytes(8, "big")
    except OverflowError:
        raise FrameError(f"sequence number {seq} does not fit in eight unsigned bytes") from None


def decode_seq(frame: bytes | memoryview) -> int:
    """Return the sequence number of a frame.

    Raises:
        FrameError: the frame does not have eight bytes.
    """
    if len(frame) != 8:
        raise FrameError(f"a sequence frame has 8 bytes, not {len(frame)}")
    return int.from_bytes(frame, "big")


def pub_frames(topic: str, seq: int, payload: bytes) -> list[bytes]:
    """Return the message that a publisher sends for one batch."""
    return [topic.encode(), encode_seq(seq), payload]


def parse_pub_frames(frames: Sequence[bytes]) -> PubFrame:
    """Read a publication.

    Raises:
        FrameError: there are not three frames, or the sequence does not have eight bytes.
    """
    if len(frames) != 3:
        raise FrameError(f"a publication has 3 frames (topic, sequence, payload), not {len(frames)}")
    topic, seq, payload = frames
    return PubFrame(topic, decode_seq(seq), payload)


def replay_request(start_seq: int) -> list[bytes]:
    """Return the message with which a DEALER requests everything from `start_seq` on.

    A REQ socket adds the empty frame itself.
    """
    return [b"", encode_seq(start_seq)]


def parse_replay_request(frames: Sequence[bytes]) -> int:
    """Return the start of a replay request, given the frames after the identity.

    vLLM reads a start of any length as one big-endian number. This function accepts up to eight bytes.

    Raises:
        FrameError: vLLM would not answer the request, or the start has more than eight bytes.
    """
    if len(frames) != 2:
        raise FrameError(f"a replay request has 2 frames after the identity (empty, start), not {len(frames)}")
    if len(frames[1]) > 8:
        raise FrameError(f"the start of a replay request has at most 8 bytes, not {len(frames[1])}")
    return int.from_bytes(frames[1], "big")


def replay_reply(form: WireForm, topic: str, seq: int, payload: bytes) -> list[bytes]:
    """Return the frames of one replayed batch that the ROUTER sends after the identity."""
    tail = [encode_seq(seq), payload]
    return [b"", topic.encode(), *tail] if form.replay_topic else [b"", *tail]


def replay_end(form: WireForm, topic: str = "") -> list[bytes]:
    """Return the frames of the end marker that the ROUTER sends after the identity; `topic` is not part of it."""
    del topic
    return [b"", b"", END_SEQ, b""] if form.replay_topic else [b"", END_SEQ, b""]


def parse_replay_reply(frames: Sequence[bytes]) -> ReplayReply:
    """Read a replay reply of either form, with or without the empty delimiter that a DEALER receives.

    The last two frames are always the sequence and the payload. Three frames that begin with an empty one are either
    the old form with a delimiter or the new form with an empty topic, which mean the same.

    Raises:
        FrameError: the frames have neither form.
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
