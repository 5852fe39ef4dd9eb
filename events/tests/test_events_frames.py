import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsync_events import (
    END_SEQ,
    REPLAY_END,
    FrameError,
    PubFrame,
    ReplayItem,
    WireForm,
    decode_seq,
    encode_seq,
    parse_pub_frames,
    parse_replay_reply,
    parse_replay_request,
    pub_frames,
    replay_end,
    replay_reply,
    replay_request,
)

OLD, NEW = WireForm.for_version("0.25.1"), WireForm.for_version("0.26.0")


def test_sequence_is_eight_bytes_big_endian():
    assert encode_seq(0) == bytes(8)
    assert encode_seq(258) == b"\x00\x00\x00\x00\x00\x00\x01\x02"
    assert decode_seq(b"\xff" * 8) == 2**64 - 1


@pytest.mark.parametrize("seq", [-1, 2**64])
def test_sequence_out_of_range(seq):
    with pytest.raises(FrameError, match=str(seq)):
        encode_seq(seq)


@pytest.mark.parametrize("frame", [b"", b"1234567", b"123456789"])
def test_sequence_frame_of_wrong_length(frame):
    with pytest.raises(FrameError, match=f"8 bytes, not {len(frame)}"):
        decode_seq(frame)


@given(st.text(max_size=10), st.integers(0, 2**64 - 1), st.binary(max_size=20))
def test_publication_round_trip(topic, seq, payload):
    assert parse_pub_frames(pub_frames(topic, seq, payload)) == PubFrame(topic.encode(), seq, payload)


@pytest.mark.parametrize("frames", [[], [b""], [b"", bytes(8)], [b"", bytes(8), b"", b""], [b"", b"1", b""]])
def test_publication_with_wrong_frames(frames):
    with pytest.raises(FrameError):
        parse_pub_frames(frames)


def test_replay_request_as_vllm_expects_it():
    assert replay_request(7) == [b"", bytes(7) + b"\x07"]
    assert parse_replay_request(replay_request(7)) == 7
    assert parse_replay_request([b"", b""]) == 0


@pytest.mark.parametrize("frames", [[], [bytes(8)], [b"", bytes(8), b""], [b"", bytes(9)]])
def test_replay_request_that_vllm_would_not_answer(frames):
    with pytest.raises(FrameError):
        parse_replay_request(frames)


def test_replay_frames_of_both_forms():
    assert replay_reply(OLD, "kv", 1, b"p") == [b"", bytes(7) + b"\x01", b"p"]
    assert replay_end(OLD, "kv") == [b"", END_SEQ, b""]
    assert replay_reply(NEW, "kv", 1, b"p") == [b"", b"kv", bytes(7) + b"\x01", b"p"]
    assert replay_end(NEW, "kv") == [b"", b"", END_SEQ, b""]


@pytest.mark.parametrize("form", [OLD, NEW], ids=["0.25", "0.26"])
@pytest.mark.parametrize("topic", ["", "kv"])
@pytest.mark.parametrize("strip", [0, 1], ids=["dealer", "req"])
@pytest.mark.parametrize("payload", [b"", b"p"])
def test_replies_of_both_forms_are_read_alike(form, topic, strip, payload):
    item = parse_replay_reply(replay_reply(form, topic, 5, payload)[strip:])
    assert isinstance(item, ReplayItem)
    assert (item.seq, item.payload) == (5, payload)
    assert item.topic == (topic.encode() if form is NEW and (topic or not strip) else None)
    assert parse_replay_reply(replay_end(form, topic)[strip:]) is REPLAY_END


@pytest.mark.parametrize(
    "frames",
    [[], [b""], [b"p", b"q"], [b"", b"1234567", b""], [b"x", b"", bytes(8), b""], [b"", b"", b"", bytes(8), b""]],
)
def test_replies_with_wrong_frames(frames):
    with pytest.raises(FrameError):
        parse_replay_reply(frames)
