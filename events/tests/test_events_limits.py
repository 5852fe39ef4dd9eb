import struct
import tracemalloc

import msgpack
import pytest

from kvsync_events import DEFAULT_LIMITS, DecodeError, Limits, decode_batch
from kvsync_events.limits import check_claims


def payload_of(*events):
    return msgpack.packb([1.0, list(events), 0])


STORED = ["BlockStored", [1, 2, 3], None, [0] * 12, 4, None]


@pytest.mark.parametrize(
    ("limits", "event", "words"),
    [
        (Limits(max_payload_bytes=10), STORED, "payload of"),
        (Limits(max_hashes=2), STORED, "3 block_hashes, over the limit of 2"),
        (Limits(max_tokens=11, max_hashes=11), STORED, "12 token_ids|exceeds max_array_len"),
        (Limits(max_hash_bytes=16), ["BlockRemoved", [b"x" * 17]], "17 bytes; 1 to 16"),
        (Limits(max_text_bytes=11), ["BlockRemoved", [1], "medium-too-long"], "exceeds max_str_len"),
        (Limits(max_block_size=3), STORED, "block_size is 4; 0 to 3"),
        (Limits(max_key_parts=2), [*STORED, None, None, [["a", "b", "c"]]], "3 extra keys"),
    ],
    ids=["payload", "hashes", "tokens", "hash bytes", "text", "block size", "key parts"],
)
def test_each_limit_is_held_and_named(limits, event, words):
    decode_batch(payload_of(event))
    with pytest.raises(DecodeError, match=words):
        decode_batch(payload_of(event), limits)


def test_too_many_events():
    payload = payload_of(*[["AllBlocksCleared"]] * 3)
    assert len(decode_batch(payload, Limits(max_events=3)).events) == 3
    with pytest.raises(DecodeError, match="3 events in a batch, over the limit of 2"):
        decode_batch(payload, Limits(max_events=2))


def test_limits_must_be_positive():
    with pytest.raises(ValueError, match="max_events must be positive, not 0"):
        Limits(max_events=0)


def nested_claims(levels, claim):
    """Return nested arrays that each claim `claim` elements, padded so that the claim of one of them is plausible."""
    headers = b"".join(b"\xdd" + struct.pack(">I", claim) for _ in range(levels))
    return b"\x93" + b"\xcb" + bytes(8) + headers + bytes(claim)


def test_nested_headers_cannot_make_the_decoder_allocate():
    payload = nested_claims(levels=500, claim=400_000)  # would allocate 1.6 GB of empty slots
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            decode_batch(payload)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * len(payload)


@pytest.mark.parametrize("levels", [40, 2000])
def test_deep_nesting_is_refused(levels):
    payload = b"\x92" + b"\xcb" + bytes(8) + b"\x91" * levels + b"\xc0"
    with pytest.raises(DecodeError):
        decode_batch(payload)


def test_a_large_honest_payload_passes_the_exact_walk():
    # Every byte looks like a long array header, so that the cheap estimate cannot decide and the walk must.
    text, binary = "é" * 300, b"\xdd\x00\x01\x00\x00\xdc\xff\xff" * 4
    event = {
        "type": "BlockStored",
        "block_hashes": [0xDC20_DC20_DC20_DC20] * 20_000 + [binary],
        "parent_block_hash": -(2**63),
        "token_ids": [0xDC20, 0xDD00, 7, 70_000] * 20_000,
        "block_size": 4,
        "unknown": [text, -1, -200, -40_000, -(2**31), 1.5, True, None, msgpack.ExtType(5, b"123"), {"a": [1] * 20}],
        "also": [msgpack.ExtType(4, bytes(n)) for n in (1, 2, 4, 8, 16, 300, 70_000)],
        "bin": [bytes(300), bytes(70_000 - 5_000), "x" * 40, "y" * 65_000],
    }
    payload = msgpack.packb([1.0, [event], 0])
    limits = Limits(max_text_bytes=80_000)
    check_claims(payload, limits)
    batch = decode_batch(payload, limits)
    assert len(batch.events[0].block_hashes) == 20_001
    assert len(batch.events[0].token_ids) == 80_000


def test_default_limits_take_a_million_token_context():
    tokens = [150_000] * 1_000_000
    event = ["BlockStored", list(range(62_500)), None, tokens, 16, None]
    assert len(decode_batch(payload_of(event), DEFAULT_LIMITS).events[0].token_ids) == 1_000_000
