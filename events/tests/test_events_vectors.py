import json

import make_vectors
import pytest
from events_vectors import FOLDER, as_tuples, build_event, load

from kvsync_events import BlockHasher, DecodeError, EventBatch, WireForm, decode_batch, encode_batch, event_hash


def test_files_are_what_the_independent_libraries_say():
    for name, content in make_vectors.make_all().items():
        assert json.loads((FOLDER / f"{name}.json").read_text()) == content, f"make {name}.json again"


@pytest.mark.parametrize(
    "chain", load("hashes")["chains"], ids=lambda c: f"{c['algo']}-{c['seed']}-{c['vllm_version']}"
)
def test_block_hashes(chain):
    random_bytes = load("hashes")["random_bytes"]
    hasher = BlockHasher(chain["algo"], chain["seed"], chain["vllm_version"], lambda n: random_bytes[:n])
    assert hasher.none_hash == chain["none_hash"]
    for block in chain["blocks"]:
        extra = as_tuples(block["extra_keys"])
        digest = hasher.hash_block(block["parent"], block["token_ids"], extra)
        assert digest == block["digest"]
        assert event_hash(digest) == block["event_hash"]


def test_the_hash_confirmed_with_a_real_vllm():
    # vLLM 0.33.0 computed `dc918a88…0749` with sha256_cbor, no seed, tokens 0-15 and no extra keys.
    digest = BlockHasher("sha256_cbor").hash_block(None, range(16)).hex()
    assert (digest[:8], digest[-4:], len(digest)) == ("dc918a88", "0749", 64)


@pytest.mark.parametrize(
    "vector", load("payloads")["batches"], ids=lambda v: f"{v['vllm_version']}-{'int' if v['int_hashes'] else 'bytes'}"
)
def test_payloads_byte_for_byte_and_back(vector):
    form = WireForm.for_version(vector["vllm_version"], int_hashes=vector["int_hashes"])
    events = [build_event(event) for event in vector["events"]]
    batch = EventBatch(vector["ts"], events, vector["data_parallel_rank"])
    assert encode_batch(batch, form) == vector["payload"]
    assert decode_batch(vector["payload"]) == batch
    assert decode_batch(memoryview(bytearray(vector["payload"]))) == batch


@pytest.mark.parametrize("vector", load("foreign")["accepted"], ids=lambda v: v["name"])
def test_payloads_of_other_engines(vector):
    batch = decode_batch(vector["payload"])
    assert batch.events == [build_event(event) for event in vector["events"]]
    assert batch.data_parallel_rank == vector["data_parallel_rank"]
    assert batch.unknown_events == vector["unknown_events"]
    assert batch.opaque_tokens == vector["opaque_tokens"]


@pytest.mark.parametrize("vector", load("foreign")["rejected"], ids=lambda v: v["name"])
def test_malformed_payloads(vector):
    with pytest.raises(DecodeError):
        decode_batch(vector["payload"])
