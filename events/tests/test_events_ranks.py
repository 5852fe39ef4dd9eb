"""Ranks of payloads, and canonical extra keys."""

import msgpack
import pytest

from kvsync_events import DecodeError, batch_rank, canonical, decode_batch, split_by_rank

EVENTS = [["BlockStored", [1, 2], None, list(range(300)), 150, None]]
PAYLOADS = {
    None: [1.0, EVENTS],
    0: [1.0, EVENTS, 0],
    7: [1.0, EVENTS, 7, "more"],
    300: {"ts": 1, "data_parallel_rank": 300, "events": EVENTS},
    2: {"ts": 1, "events": EVENTS, "attn_dp_rank": 2},
}


@pytest.mark.parametrize("rank", PAYLOADS)
def test_the_rank_is_the_one_that_a_decoder_finds(rank):
    payload = msgpack.packb(PAYLOADS[rank])
    assert batch_rank(payload) == decode_batch(payload).data_parallel_rank == rank


@pytest.mark.parametrize(
    "payload", [b"", b"\x93", b"\x01", b"\x93\x01\x90", b"\x93\x01\x90\xa1x", b"\xff", b"\x93\x01\x90\xff"]
)
def test_what_is_no_batch_has_no_rank(payload):
    with pytest.raises(DecodeError):
        batch_rank(payload)


def test_payloads_are_split_by_rank_in_their_order():
    payloads = [msgpack.packb([at, [], rank]) for at, rank in enumerate([0, 1, None, 1, 0])]
    split = {rank: [msgpack.unpackb(one)[0] for one in part] for rank, part in split_by_rank(payloads).items()}
    assert split == {0: [0, 4], 1: [1, 3], None: [2]}


def test_equal_maps_have_equal_bytes():
    assert canonical(({"a": 1, b"a": [2]},)) == canonical(({b"a": (2,), "a": 1},))
    different = [{"a": 1}, {b"a": 1}, {"a": 1.0}, {"a": True}, {"a": [1]}, {"a": {"a": 1}}, [["a", 1]], {}]
    assert len({canonical((one,)) for one in different}) == len(different)


@pytest.mark.parametrize("value", [object(), 1 << 127, "\ud800", {1: 2}, [[[[[[[[[1]]]]]]]]]])
def test_values_that_have_no_canonical_bytes(value):
    with pytest.raises(ValueError, match="extra key"):
        canonical((value,))
