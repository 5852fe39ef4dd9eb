from contextlib import suppress

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvsync_events import (
    AllBlocksCleared,
    BlockRemoved,
    BlockStored,
    DecodeError,
    EventBatch,
    WireForm,
    decode_batch,
    encode_batch,
    event_hash,
    supported_versions,
)

relaxed = settings(deadline=None, max_examples=150)
uint64 = st.integers(0, 2**64 - 1)
texts = st.none() | st.text(max_size=8)
small = st.none() | st.integers(0, 65_535)
key_scalars = st.text(max_size=6) | st.integers(-(2**31), 2**63) | st.binary(min_size=1, max_size=40)
key_parts = key_scalars | st.tuples(st.text(max_size=6), st.integers(-100, 100))
keys = st.none() | st.lists(st.none() | st.lists(key_parts, max_size=3).map(tuple), max_size=4)
media = st.sampled_from([None, "GPU", "CPU", "STORAGE", "cpu"])


def stored(hashes):
    return st.builds(
        BlockStored,
        block_hashes=st.lists(hashes, max_size=4),
        parent_block_hash=st.none() | hashes,
        token_ids=st.lists(st.integers(0, 2**32 - 1), max_size=40),
        block_size=st.integers(0, 4096),
        lora_id=st.none() | st.integers(0, 2**31),
        medium=media,
        lora_name=texts,
        extra_keys=keys,
        group_idx=small,
        kv_cache_spec_kind=st.sampled_from([None, "full_attention", "sliding_window", "mamba"]),
        kv_cache_spec_sliding_window=st.none() | st.integers(0, 2**20),
        locality=st.sampled_from([None, "LOCAL", "REMOTE"]),
        ownership=texts,
        session_id=texts,
        lookahead_token_ids=st.none() | st.lists(st.lists(st.integers(0, 2**31), max_size=2), max_size=3),
    )


def batches(hashes):
    removed = st.builds(
        BlockRemoved, st.lists(hashes, max_size=4), medium=media, group_idx=small, locality=texts, ownership=texts
    )
    events = st.lists(stored(hashes) | removed | st.builds(AllBlocksCleared), max_size=5)
    return st.builds(EventBatch, st.floats(0, 2e9), events, st.integers(0, 64))


def cut(batch, form):
    """Return the batch without the fields that this version does not have."""
    for event in batch.events:
        names = {BlockStored: form.stored_fields, BlockRemoved: form.removed_fields}.get(type(event), ())
        for name in type(event).__slots__:
            if names and name not in names:
                setattr(event, name, None)
    if not form.batch_rank:
        batch.data_parallel_rank = None
    return batch


@relaxed
@given(batch=batches(uint64), version=st.sampled_from(supported_versions()))
def test_integer_hashes_round_trip_in_every_version(batch, version):
    form = WireForm.for_version(version)
    assert decode_batch(encode_batch(batch, form)) == cut(batch, form)


@relaxed
@given(batch=batches(st.binary(min_size=32, max_size=32)), version=st.sampled_from(supported_versions()[5:]))
def test_digests_round_trip_raw_or_as_their_low_64_bits(batch, version):
    raw = WireForm.for_version(version, int_hashes=False)
    assert decode_batch(encode_batch(batch, raw)) == cut(batch, raw)
    low = WireForm.for_version(version)
    for sent, got in zip(batch.events, decode_batch(encode_batch(batch, low)).events, strict=True):
        if not isinstance(sent, AllBlocksCleared):
            assert got.block_hashes == [event_hash(digest) for digest in sent.block_hashes]


@relaxed
@given(payload=st.binary(max_size=200))
def test_random_bytes_give_the_typed_error_or_a_batch(payload):
    with suppress(DecodeError):
        assert isinstance(decode_batch(payload), EventBatch)


scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5)
values = st.recursive(
    scalars | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)
tags = st.sampled_from(["BlockStored", "BlockRemoved", "AllBlocksCleared", "Other"])
names = st.sampled_from([*BlockStored.__slots__, "cache_salt", "type"])
array_events = st.builds(lambda tag, rest: [tag, *rest], tags, st.lists(values, max_size=16))
map_events = st.builds(
    lambda tag, rest: {**rest, "type": tag}, tags, st.dictionaries(names, values | st.just([1]), max_size=10)
)


@relaxed
@given(events=st.lists(array_events | map_events | values, max_size=3), rank=values)
def test_any_structure_gives_the_typed_error_or_a_batch(events, rank):
    payload = msgpack.packb([1.0, events, rank])
    try:
        batch = decode_batch(payload)
    except DecodeError:
        return
    assert len(batch.events) + batch.unknown_events == len(events)


@relaxed
@given(batch=batches(uint64), version=st.sampled_from(["0.23.0", "0.33.0"]), data=st.data())
def test_flipped_and_truncated_bytes_give_the_typed_error_or_a_batch(batch, version, data):
    payload = bytearray(encode_batch(batch, WireForm.for_version(version)))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(payload)))
    for damaged in (bytes(payload), bytes(payload[:end])):
        with suppress(DecodeError):
            assert isinstance(decode_batch(damaged), EventBatch)


def test_truncation_at_every_byte_is_malformed():
    batch = EventBatch(1.0, [BlockStored([1, 2], None, list(range(32)), 16), BlockRemoved([3])], 0)
    for version in ("0.23.0", "0.33.0"):
        payload = encode_batch(batch, WireForm.for_version(version))
        for end in range(len(payload)):
            with pytest.raises(DecodeError):
                decode_batch(payload[:end])
