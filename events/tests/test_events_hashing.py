import hashlib
import pickle
from array import array

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvsync_events import (
    BlockHasher,
    BlockRemoved,
    EncodeError,
    EventBatch,
    HashingError,
    UnsupportedVersionError,
    WireForm,
    decode_batch,
    encode_batch,
    event_extra_keys,
    event_hash,
    hash_algorithms,
    hash_extra_keys,
)
from kvsync_events.cbor import encode_block

PARENT = bytes(range(32))
tokens = st.lists(st.integers(0, 2**32 - 1), max_size=300)
parents = st.binary(min_size=1, max_size=64)
extras = st.none() | st.lists(st.text(max_size=5) | st.tuples(st.text(max_size=5), st.integers(-9, 9)), min_size=1).map(
    tuple
)


@settings(deadline=None)
@given(parents, tokens, extras)
def test_cbor_of_a_block_is_the_general_encoders(parent, token_ids, extra):
    assert encode_block(parent, token_ids, extra) == cbor2.dumps((parent, tuple(token_ids), extra), canonical=True)


@pytest.mark.parametrize("algo", hash_algorithms())
def test_any_sequence_of_tokens_will_do(algo):
    hash_block = BlockHasher(algo, "0").hash_block
    numbers = [5, 70_000, 3, 9]
    expected = hash_block(PARENT, numbers)
    assert hash_block(PARENT, tuple(numbers)) == hash_block(PARENT, array("I", numbers)) == expected
    assert hash_block(PARENT, numbers, ()) == expected
    assert hash_block(PARENT, numbers, ("x",)) != expected
    assert len(expected) == (16 if algo.startswith("xxhash") else 32)


def test_first_parent_is_none_hash():
    hasher = BlockHasher("sha256", "7")
    assert hasher.hash_block(None, [1]) == hasher.hash_block(hasher.none_hash, [1])


def test_seed_decides_none_hash_and_without_one_only_fixed_or_random():
    fixed = hashlib.sha256(pickle.dumps("vllm-none-hash", 5)).digest()
    assert BlockHasher("sha256").none_hash == fixed
    assert BlockHasher("sha256", "vllm-none-hash").none_hash == fixed
    assert (
        BlockHasher("sha256", vllm_version="0.28.0").none_hash != BlockHasher("sha256", vllm_version="0.28").none_hash
    )
    assert BlockHasher("xxhash").none_hash != BlockHasher("xxhash").none_hash
    assert len(BlockHasher("xxhash", vllm_version="0.28.0").none_hash) == 32
    assert len(BlockHasher("xxhash").none_hash) == 16


def test_algorithms_by_version():
    assert hash_algorithms("0.9.2") == ("builtin", "sha256")
    assert hash_algorithms("0.10.1")[2] == "sha256_cbor_64bit"
    assert hash_algorithms("0.10.2") == ("sha256", "sha256_cbor")
    assert hash_algorithms("0.13.0") == hash_algorithms()
    with pytest.raises(HashingError, match=r"'builtin': vLLM 0\.33\.0 has sha256, sha256_cbor, xxhash, xxhash_cbor"):
        BlockHasher("builtin")
    with pytest.raises(UnsupportedVersionError):
        BlockHasher("sha256", vllm_version="0.8.5")


def test_builtin_is_signed_and_deterministic():
    hash_block = BlockHasher("builtin", "0", "0.10.0").hash_block
    digests = [hash_block(None, [number], ("salt", b"x", 1)) for number in range(50)]
    assert digests == [
        BlockHasher("builtin", "0", "0.10.0").hash_block(None, [n], ("salt", b"x", 1)) for n in range(50)
    ]
    form = WireForm.for_version("0.10.0", hash_algo="builtin")
    sent = decode_batch(encode_batch(EventBatch(0.0, [BlockRemoved(list(digests))]), form)).events[0].block_hashes
    assert min(sent) < 0 < max(sent)
    assert sent == [int.from_bytes(digest, "big", signed=True) for digest in digests]
    # The chained integers are values of Python's own hash.
    parent = int.from_bytes(digests[0], "big", signed=True)
    assert int.from_bytes(hash_block(digests[0], [1, 2]), "big", signed=True) == hash((parent, (1, 2), 0xFCA86420))


def test_sha256_up_to_0_10_1_cannot_be_sent():
    digest = BlockHasher("sha256", "0", "0.10.1").hash_block(None, range(16))
    with pytest.raises(EncodeError, match=r"0\.10\.1"):
        encode_batch(EventBatch(0.0, [BlockRemoved([digest])]), WireForm.for_version("0.10.1"))


def test_event_hash_is_the_low_64_bits():
    assert event_hash(bytes(24) + b"\xff" * 8) == 2**64 - 1
    assert event_hash(b"\x01" + bytes(15)) == 0


def test_extra_keys_by_version():
    given_keys = {
        "lora_name": "a",
        "lora_path": "/a",
        "mm": [("img", -2)],
        "cache_salt": "s",
        "prompt_embeds": b"e",
        "lora_id": 4,
    }
    expected = {
        "0.33.0": (("lora", "a", "/a"), ("mm", "img", -2), ("cache_salt", "s"), ("prompt_embeds", b"e")),
        "0.30.0": ("a", ("img", -2), "s", b"e"),
        "0.19.0": ("a", ("img", -2), "s", b"e"),
        "0.18.0": ("a", "img", "s", b"e"),
        "0.12.0": ("a", "img", "s", b"e"),
        "0.11.0": (4, "img", "s"),
    }
    for version, keys in expected.items():
        assert hash_extra_keys(**given_keys, vllm_version=version) == keys
    assert hash_extra_keys() is None
    assert hash_extra_keys(cache_salt="") is None


def test_missing_lora_parts():
    with pytest.raises(HashingError, match="lora_path is missing for 'a'"):
        hash_extra_keys("a")
    with pytest.raises(HashingError, match="lora_id is missing for 'a'"):
        hash_extra_keys("a", vllm_version="0.10.2")
    assert hash_extra_keys("a", vllm_version="0.20.0") == ("a",)


def test_events_say_the_keys_without_tags():
    keys = hash_extra_keys("lora", "/a", [("mm", -2), ("lora", 3)], "mm", b"e" * 32)
    assert event_extra_keys([keys, None]) == [("lora", ("mm", -2), ("lora", 3), "mm", b"e" * 32), None]
    bare = hash_extra_keys("lora", None, [("mm", -2), ("lora", 3)], "s", vllm_version="0.20.0")
    assert event_extra_keys([bare]) == [("lora", ("mm", -2), ("lora", 3), "s")]
    assert event_extra_keys([]) is None


def test_equal_keys_hash_equal_whether_or_not_they_are_one_object():
    name, other = b"image".decode(), b"image".decode()
    assert name is not other
    one = hash_extra_keys(mm=[(name, 0), (name, 4)])
    two = hash_extra_keys(mm=[(name, 0), (other, 4)])
    hash_block = BlockHasher("sha256", "0").hash_block
    assert hash_block(None, [1], one) == hash_block(None, [1], two)
