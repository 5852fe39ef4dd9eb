"""Block hashes, NONE_HASH and extra keys compared with vLLM's own functions."""

import random
from types import SimpleNamespace

import pytest
from interop_versions import VERSIONS
from vllm_classes import load_hashing

from kvsync_events import BlockHasher, event_extra_keys, hash_algorithms, hash_extra_keys

CASES = [(v, a, s) for v in VERSIONS for a in hash_algorithms(v) if a != "builtin" for s in ("0", "31", None)]


def as_bytes(value, algo):
    if isinstance(value, bytes):
        return value
    return value.to_bytes(8 if algo == "sha256_cbor_64bit" else 32, "big")


@pytest.mark.parametrize(("version", "algo", "seed"), CASES)
def test_chains(version, algo, seed):
    theirs = load_hashing(version, seed)
    function = theirs["get_hash_fn_by_name"](algo) if "get_hash_fn_by_name" in theirs else theirs[algo]
    if "init_none_hash" in theirs:
        theirs["init_none_hash"](function)
    hasher = BlockHasher(algo, seed, version, lambda count: bytes(range(count)))
    if isinstance(theirs["NONE_HASH"], bytes):
        assert hasher.none_hash == theirs["NONE_HASH"]
    rng = random.Random(5)
    ours, parent = None, None
    for _ in range(6):
        tokens = [rng.randrange(200_000) for _ in range(rng.choice((4, 16, 128)))]
        parent = theirs["hash_block_tokens"](function, parent, tokens, None)
        ours = hasher.hash_block(ours, tokens)
        assert ours == as_bytes(parent, algo)


REQUESTS = {
    "lora": {"lora": True},
    "salt": {"salt": "tenant"},
    "images": {"mm": [("image-a", 2, 9), ("image-b", 12, 40)]},
    "one image twice": {"mm": [("image-a", 0, 5), ("image-a", 8, 5)]},
    "all": {"lora": True, "salt": "tenant", "mm": [("image-a", 0, 16), ("image-b", 17, 4)]},
    "nothing": {},
}


def request(lora=False, salt=None, mm=()):
    # Every string is an object of its own, as in an engine that decoded the request from a message.
    mm = [(name.encode().decode(), offset, length) for name, offset, length in mm]
    features = [
        SimpleNamespace(identifier=name, mm_hash=name, mm_position=SimpleNamespace(offset=offset, length=length))
        for name, offset, length in mm
    ]
    # 0.9 to 0.10 keep positions and hashes in two lists.
    return SimpleNamespace(
        lora_request=SimpleNamespace(lora_name="adapter", lora_path="/adapters/x", lora_int_id=9) if lora else None,
        cache_salt=salt,
        mm_features=features,
        mm_positions=[feature.mm_position for feature in features],
        mm_hashes=[feature.mm_hash for feature in features],
        prompt_embeds=None,
    )


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", REQUESTS)
def test_extra_keys_in_hashes_and_events(version, name):
    theirs = load_hashing(version, "0")
    algo = "sha256"
    if "init_none_hash" in theirs:
        theirs["init_none_hash"](theirs["sha256"])
    hasher = BlockHasher(algo, "0", version)
    spec, at = REQUESTS[name], 0
    for start in (0, 16, 32):
        expected, at = theirs["generate_block_hash_extra_keys"](request(**spec), start, start + 16, at)
        inside = [
            (identifier, offset - start)
            for identifier, offset, length in spec.get("mm", ())
            if offset < start + 16 and offset + length > start
        ]
        keys = hash_extra_keys(
            "adapter" if spec.get("lora") else None,
            "/adapters/x" if spec.get("lora") else None,
            inside,
            spec.get("salt") if start == 0 else None,
            vllm_version=version,
            lora_id=9 if spec.get("lora") else None,
        )
        assert keys == expected
        tokens = list(range(start, start + 16))
        digest = theirs["hash_block_tokens"](theirs["sha256"], None, tokens, expected)
        assert hasher.hash_block(None, tokens, keys) == as_bytes(digest, algo)
        if "to_event_extra_keys" in theirs:
            assert event_extra_keys([keys]) == theirs["to_event_extra_keys"]([expected])
