"""Writes the golden vectors in `vectors/` without the code under test: `python events/tests/make_vectors.py`.

Hashes come from hashlib, pickle, cbor2 and xxhash, and payloads from msgspec structs that are declared as in vLLM. The
expected events of foreign payloads are written by hand. A test generates the vectors in memory and compares them with
the files.

JSON has neither bytes nor tuples: bytes are written as `{"hex": "…"}`, and tuples as arrays.
"""

import hashlib
import json
import pickle
import random
from pathlib import Path

import cbor2
import msgspec
import xxhash
from foreign_vectors import make_foreign

FOLDER = Path(__file__).parent / "vectors"

# Each field with its first version. Fields without a default are always written in map events.
STORED = [
    ("block_hashes", (0, 9, 0), True),
    ("parent_block_hash", (0, 9, 0), True),
    ("token_ids", (0, 9, 0), True),
    ("block_size", (0, 9, 0), True),
    ("lora_id", (0, 9, 0), True),
    ("medium", (0, 10, 2), True),
    ("lora_name", (0, 14, 0), True),
    ("extra_keys", (0, 17, 0), False),
    ("group_idx", (0, 20, 0), False),
    ("kv_cache_spec_kind", (0, 21, 0), False),
    ("kv_cache_spec_sliding_window", (0, 21, 0), False),
    ("locality", (0, 26, 0), False),
    ("ownership", (0, 29, 0), False),
    ("session_id", (0, 30, 0), False),
    ("lookahead_token_ids", (0, 33, 0), False),
]
REMOVED = [
    ("block_hashes", (0, 9, 0), True),
    ("medium", (0, 10, 2), True),
    ("group_idx", (0, 20, 0), False),
    ("locality", (0, 26, 0), False),
    ("ownership", (0, 29, 0), False),
]
VERSIONS = (
    "0.9.0", "0.9.1", "0.10.1", "0.10.2", "0.13.0", "0.14.0", "0.17.0", "0.20.0", "0.22.0", "0.23.0", "0.24.0",
    "0.25.1", "0.26.0", "0.28.0", "0.29.0", "0.30.0", "0.31.0", "0.33.0",
)  # fmt: skip


def jsonable(value):
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, tuple | list):
        return [jsonable(item) for item in value]
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    return value


# --- hashes ---------------------------------------------------------------------------------------------------------


def make_hashes():
    """Return chains of three blocks and blocks with extra keys for each algorithm of 0.33, and NONE_HASH by version."""
    functions = {
        "sha256": lambda value: hashlib.sha256(pickle.dumps(value, protocol=5)).digest(),
        "sha256_cbor": lambda value: hashlib.sha256(cbor2.dumps(value, canonical=True)).digest(),
        "xxhash": lambda value: xxhash.xxh3_128(pickle.dumps(value, protocol=5)).digest(),
        "xxhash_cbor": lambda value: xxhash.xxh3_128(cbor2.dumps(value, canonical=True)).digest(),
    }
    rng = random.Random(20)
    extras = [
        (("lora", "adapter-a", "/adapters/a"),),
        (("mm", "image-1", -3), ("mm", "image-2", 9)),
        (("lora", "adapter-a", "/adapters/a"), ("mm", "image-1", 0), ("cache_salt", "tenant-7")),
        (("cache_salt", "ünïcode"),),
        (("prompt_embeds", bytes(range(32))),),
    ]
    chains = []
    for algo, function in functions.items():
        for seed in ("0", "1234", None):
            fixed = "vllm-none-hash" if seed is None else seed
            if seed is None and algo.startswith("xxhash"):
                fixed = bytes(range(32)).hex()  # the random bytes that the test passes in
            none_hash = function(fixed)
            blocks, parent = [], none_hash
            for tokens in (
                list(range(16)),
                [rng.randrange(200_000) for _ in range(16)],
                [0, 23, 24, 255, 256, 65535, 65536, 4294967295],
            ):
                digest = function((parent, tuple(tokens), None))
                blocks.append(
                    {
                        "parent": None if parent is none_hash else parent,
                        "token_ids": tokens,
                        "extra_keys": None,
                        "digest": digest,
                    }
                )
                parent = digest
            for extra in extras:
                tokens = [rng.randrange(200_000) for _ in range(4)]
                digest = function((none_hash, tuple(tokens), extra))
                blocks.append({"parent": None, "token_ids": tokens, "extra_keys": extra, "digest": digest})
            for block in blocks:
                block["event_hash"] = int.from_bytes(block["digest"], "big") & ((1 << 64) - 1)
            chains.append(
                {"algo": algo, "seed": seed, "vllm_version": "0.33.0", "none_hash": none_hash, "blocks": blocks}
            )
    chains += old_chains()
    return {"random_bytes": bytes(range(32)), "chains": chains}


def old_chains():
    """Up to 0.10.1 the parent is an integer. Up to 0.28 an unset seed means 32 random bytes for every algorithm."""

    def integer_sha256(value):
        return int.from_bytes(hashlib.sha256(pickle.dumps(value, protocol=5)).digest(), "big")

    def integer_cbor(value):
        return int.from_bytes(hashlib.sha256(cbor2.dumps(value, canonical=True)).digest(), "big") & ((1 << 64) - 1)

    chains = []
    for version, algo, function, width in (
        ("0.9.0", "sha256", integer_sha256, 32),
        ("0.10.1", "sha256", integer_sha256, 32),
        ("0.10.1", "sha256_cbor_64bit", integer_cbor, 8),
    ):
        none_hash = function("0")
        first = function((none_hash, tuple(range(16)), None))
        second = function((first, tuple(range(16, 32)), ("salt",)))
        chains.append(
            {
                "algo": algo,
                "seed": "0",
                "vllm_version": version,
                "none_hash": none_hash.to_bytes(width, "big"),
                "blocks": [
                    {
                        "parent": None,
                        "token_ids": list(range(16)),
                        "extra_keys": None,
                        "digest": first.to_bytes(width, "big"),
                        "event_hash": first & ((1 << 64) - 1),
                    },
                    {
                        "parent": first.to_bytes(width, "big"),
                        "token_ids": list(range(16, 32)),
                        "extra_keys": ("salt",),
                        "digest": second.to_bytes(width, "big"),
                        "event_hash": second & ((1 << 64) - 1),
                    },
                ],
            }
        )
    for version in ("0.10.2", "0.28.0"):
        none_hash = bytes(range(32))
        digest = hashlib.sha256(cbor2.dumps((none_hash, tuple(range(16)), None), canonical=True)).digest()
        chains.append(
            {
                "algo": "sha256_cbor",
                "seed": None,
                "vllm_version": version,
                "none_hash": none_hash,
                "blocks": [
                    {
                        "parent": None,
                        "token_ids": list(range(16)),
                        "extra_keys": None,
                        "digest": digest,
                        "event_hash": int.from_bytes(digest[-8:], "big"),
                    }
                ],
            }
        )
    return chains


# --- payloads -------------------------------------------------------------------------------------------------------


def structs(version):
    """Return msgspec structs as that version of vLLM declares them."""
    parsed = tuple(int(part) for part in version.split("."))
    array_like = parsed < (0, 24, 0)

    def event(name, table):
        fields = [
            (field, object) if required or array_like else (field, object, None)
            for field, since, required in table
            if since <= parsed
        ]
        return msgspec.defstruct(name, fields, tag=True, array_like=array_like, omit_defaults=True, gc=False)

    rank = [("data_parallel_rank", int | None, None)] if parsed >= (0, 9, 1) else []
    batch = msgspec.defstruct(
        "KVEventBatch", [("ts", float), ("events", list), *rank], array_like=True, omit_defaults=True, gc=False
    )
    return batch, event("BlockStored", STORED), event("BlockRemoved", REMOVED), event("AllBlocksCleared", [])


STORED_SAMPLES = [
    {
        "block_hashes": [1, 127, 128, 2**32, 2**64 - 1],
        "parent_block_hash": None,
        "token_ids": [0, 127, 128, 255, 256, 65535, 65536, 199999] * 10,
        "block_size": 16,
    },
    {
        "block_hashes": [0xDC918A88],
        "parent_block_hash": 2**63,
        "token_ids": list(range(16)),
        "block_size": 16,
        "lora_id": 3,
        "medium": "GPU",
        "lora_name": "adapter-a",
        "extra_keys": [("adapter-a", ("image-1", -4), "tenant")],
        "group_idx": 0,
        "kv_cache_spec_kind": "full_attention",
    },
    {
        "block_hashes": [5, 6],
        "parent_block_hash": 4,
        "token_ids": [7] * 64,
        "block_size": 32,
        "medium": "CPU",
        "extra_keys": [None, (bytes(range(32)),)],
        "group_idx": 1,
        "kv_cache_spec_kind": "sliding_window",
        "kv_cache_spec_sliding_window": 4096,
        "locality": "LOCAL",
        "ownership": "fs",
        "session_id": "s-1",
        "lookahead_token_ids": [[1], []],
    },
    {"block_hashes": [9], "parent_block_hash": None, "token_ids": [], "block_size": 0, "medium": "STORAGE"},
]
REMOVED_SAMPLES = [
    {"block_hashes": [1], "medium": None},
    {"block_hashes": [2**64 - 1, 3], "medium": "GPU", "group_idx": 2, "locality": "REMOTE", "ownership": "fs"},
]


def make_payloads():
    """Return one batch with every kind of event per version, with integer hashes and, from 0.10.2 on, raw digests."""
    encoder = msgspec.msgpack.Encoder()
    vectors = []
    for version in VERSIONS:
        batch_type, stored_type, removed_type, cleared_type = structs(version)
        for int_hashes in (True, False):
            if not int_hashes and tuple(map(int, version.split("."))) < (0, 10, 2):
                continue
            events = []
            for kind, samples in ((stored_type, STORED_SAMPLES), (removed_type, REMOVED_SAMPLES)):
                for sample in samples:
                    fields = {name: sample.get(name) for name in kind.__struct_fields__}
                    if not int_hashes:
                        fields = with_digests(fields)
                    events.append(kind(**fields))
            events.append(cleared_type())
            rank = {"data_parallel_rank": 3} if "data_parallel_rank" in batch_type.__struct_fields__ else {}
            payload = encoder.encode(batch_type(ts=1700000000.25, events=events, **rank))
            vectors.append(
                {
                    "vllm_version": version,
                    "int_hashes": int_hashes,
                    "ts": 1700000000.25,
                    "data_parallel_rank": rank.get("data_parallel_rank"),
                    "events": [
                        {
                            "type": type(event).__name__,
                            **{name: getattr(event, name) for name in event.__struct_fields__},
                        }
                        for event in events
                    ],
                    "payload": payload,
                }
            )
    return {"batches": vectors}


def with_digests(fields):
    digest = lambda number: hashlib.sha256(str(number).encode()).digest()  # noqa: E731
    fields = dict(fields, block_hashes=[digest(number) for number in fields["block_hashes"]])
    if fields.get("parent_block_hash") is not None:
        fields["parent_block_hash"] = digest(fields["parent_block_hash"])
    return fields


def make_all():
    return {
        name: jsonable(make())
        for name, make in (("hashes", make_hashes), ("payloads", make_payloads), ("foreign", make_foreign))
    }


def main():
    FOLDER.mkdir(exist_ok=True)
    for name, content in make_all().items():
        (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
