"""Our payloads through vLLM's typed decoder, vLLM's payloads through ours, and both encoders byte for byte."""

import hashlib
import itertools

import msgspec
import pytest
from interop_versions import VERSIONS
from vllm_classes import load_kv_events

from kvsync_events import (
    AllBlocksCleared,
    BlockRemoved,
    BlockStored,
    EventBatch,
    WireForm,
    decode_batch,
    encode_batch,
    publisher_binds,
    rank_endpoint,
)

SAMPLES = {
    "block_hashes": [[7], [2**64 - 1, 0, 1 << 63], []],
    "parent_block_hash": [None, 2**40],
    "token_ids": [[], list(range(100, 116)), [0, 199_999, 65_536, 127, 128, 255, 256] * 7],
    "block_size": [16, 0],
    "lora_id": [None, 4],
    "medium": [None, "GPU", "CPU"],
    "lora_name": [None, "adapter"],
    "extra_keys": [None, [("adapter", ("image", -3), "salt", b"\x01" * 32)], [None, ("x",)], []],
    "group_idx": [None, 0, 3],
    "kv_cache_spec_kind": [None, "full_attention", "sliding_window"],
    "kv_cache_spec_sliding_window": [None, 4096],
    "locality": [None, "LOCAL"],
    "ownership": [None, "fs"],
    "session_id": [None, "s"],
    "lookahead_token_ids": [None, [[1, 2], []]],
}


def digests(hashes):
    return [hashlib.sha256(str(number).encode()).digest() for number in hashes]


def samples(names, int_hashes):
    """Enough combinations of fields for every sample of every field to appear with different neighbours."""
    for turn in range(24):
        fields = {name: SAMPLES[name][(turn // (1 + at % 3)) % len(SAMPLES[name])] for at, name in enumerate(names)}
        if not int_hashes:
            fields["block_hashes"] = digests(fields["block_hashes"])
            if fields.get("parent_block_hash") is not None:
                (fields["parent_block_hash"],) = digests([fields["parent_block_hash"]])
        yield fields


def events(version, int_hashes):
    """The same events as our types and as vLLM's."""
    theirs = load_kv_events(version)
    form = WireForm.for_version(version, int_hashes=int_hashes)
    for our_class, their_class in ((BlockStored, theirs.BlockStored), (BlockRemoved, theirs.BlockRemoved)):
        names = their_class.__struct_fields__
        assert names == (form.stored_fields if our_class is BlockStored else form.removed_fields)
        for fields in samples(names, int_hashes):
            yield our_class(**fields), their_class(**fields)
    yield AllBlocksCleared(), theirs.AllBlocksCleared()


CASES = [
    (version, int_hashes)
    for version, int_hashes in itertools.product(VERSIONS, (True, False))
    if int_hashes or tuple(map(int, version.split("."))) >= (0, 10, 2)
]


@pytest.mark.parametrize(("version", "int_hashes"), CASES)
def test_both_encoders_write_the_same_bytes_and_both_decoders_read_them(version, int_hashes):
    theirs = load_kv_events(version)
    form = WireForm.for_version(version, int_hashes=int_hashes)
    pairs = list(events(version, int_hashes))
    rank = {"data_parallel_rank": 2} if form.batch_rank else {}
    ours = EventBatch(1700000000.125, [ours for ours, _ in pairs], **rank)
    their_batch = theirs.KVEventBatch(ts=1700000000.125, events=[event for _, event in pairs], **rank)
    payload = encode_batch(ours, form)
    assert payload == msgspec.msgpack.Encoder().encode(their_batch)
    assert decode_batch(payload) == ours
    assert msgspec.msgpack.Decoder(theirs.KVEventBatch).decode(payload) == msgspec.msgpack.Decoder(
        theirs.KVEventBatch
    ).decode(msgspec.msgpack.encode(their_batch))


@pytest.mark.parametrize("version", [version for version in VERSIONS if WireForm.for_version(version).batch_rank])
def test_no_rank_is_written_as_null(version):
    theirs = load_kv_events(version)
    payload = encode_batch(EventBatch(0.5, []), WireForm.for_version(version))
    assert payload == msgspec.msgpack.encode(theirs.KVEventBatch(ts=0.5, events=[]))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_other_encoding_is_refused_by_vllm(version):
    """If a pod chose the wrong form, these tests would detect it."""
    theirs = load_kv_events(version)
    other = WireForm.for_version("0.23.0" if WireForm.for_version(version).map_events else "0.24.0")
    payload = encode_batch(EventBatch(0.5, [BlockRemoved([1])], 0), other)
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.Decoder(theirs.KVEventBatch).decode(payload)


@pytest.mark.parametrize("version", [version for version in VERSIONS if version != "0.9.0"])
def test_endpoints_of_ranks(version):
    offset = load_kv_events(version).ZmqEventPublisher.offset_endpoint_port
    for endpoint, rank in itertools.product(
        ("tcp://*:5557", "tcp://host:7000", "tcp://[::]:5557", "inproc://kv"), (0, 1, 7)
    ):
        assert rank_endpoint(endpoint, rank) == offset(endpoint, rank)


def test_bind_rule_of_the_newest():
    theirs = load_kv_events(VERSIONS[-1]).ZmqEventPublisher._is_bind_endpoint
    for endpoint in (
        "tcp://*:1",
        "tcp://0.0.0.0:1",
        "tcp://[::]:1",
        "tcp://h:1",
        "ipc://x",
        "inproc://x",
        "tcp://[::1]:1",
    ):
        assert publisher_binds(endpoint) == theirs(endpoint)
