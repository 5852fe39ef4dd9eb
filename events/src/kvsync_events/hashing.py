"""vLLM's block hashes: what a mock engine announces, and what golden vectors pin.

`H_i = hash((parent, tuple(tokens), extra keys or None))`, the first parent being NONE_HASH. An index never recomputes
these (events since 0.31 do not carry the LoRA path that is hashed); they are opaque to it. Sources:
`hash_block_tokens`, `init_none_hash` and `vllm/utils/hashing.py` of the releases 0.9.0 to 0.33.0.

Up to 0.10.1 hashes were integers; here they are bytes all the same: 32 for `sha256` (256 bits, which that version then
fails to send), 8 for `sha256_cbor_64bit`, and 8 as a signed number for `builtin`. Python's `hash` of strings differs by
process, so `builtin` takes a stable number in the place of a string (no one outside could know the real one).
"""

import hashlib
import os
import pickle
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import xxhash

from kvsync_events.cbor import encode_block, encode_value
from kvsync_events.errors import HashingError
from kvsync_events.versions import NEWEST_VERSION, Version, parse_version

_PICKLE_PROTOCOL: Final = 5
"""pickle.HIGHEST_PROTOCOL of every Python that vLLM runs on."""
_FIXED_SEED: Final = "vllm-none-hash"

Digest = Callable[[bytes], bytes]


class HashBlock(Protocol):
    """Hash of one full block; `parent` None is the first block of a chain."""

    def __call__(
        self, parent: bytes | None, token_ids: Sequence[int], extra_keys: tuple[Any, ...] | None = None
    ) -> bytes:
        """The digest: 32 bytes with sha256, 16 with xxh3-128, 8 with the 64-bit algorithms up to 0.10.1."""
        ...


def hash_algorithms(vllm_version: str = NEWEST_VERSION) -> tuple[str, ...]:
    """The values `--prefix-caching-hash-algo` takes in this version, its default first."""
    version = parse_version(vllm_version)
    if version < (0, 10, 0):
        return ("builtin", "sha256")
    if version < (0, 10, 2):
        return ("builtin", "sha256", "sha256_cbor_64bit")
    if version < (0, 13, 0):
        return ("sha256", "sha256_cbor")
    return ("sha256", "sha256_cbor", "xxhash", "xxhash_cbor")


def event_hash(digest: bytes) -> int:
    """The integer that stands for a digest in events since 0.10.2: its low 64 bits, unsigned."""
    return int.from_bytes(digest[-8:], "big")


class BlockHasher:
    """The hash function of one engine process.

    `seed` is PYTHONHASHSEED (None: unset; the first parent is then random, but for the SHA-256 algorithms from 0.29).
    `random_bytes` is where that randomness comes from. `hash_block` is bound per algorithm once: call it,
    don't wrap it. Raises HashingError for an algorithm the version does not have.
    """

    __slots__ = ("algo", "hash_block", "none_hash", "vllm_version")

    hash_block: HashBlock

    def __init__(
        self,
        algo: str = "sha256",
        seed: str | None = None,
        vllm_version: str = NEWEST_VERSION,
        random_bytes: Callable[[int], bytes] | None = None,
    ) -> None:
        allowed = hash_algorithms(vllm_version)
        if algo not in allowed:
            raise HashingError(f"hash algorithm {algo!r}: vLLM {vllm_version} has {', '.join(allowed)}")
        version = parse_version(vllm_version)
        self.algo = algo
        self.vllm_version = vllm_version
        self.none_hash = _none_hash(algo, seed, version, random_bytes or os.urandom)
        self.hash_block = _bind(algo, version, self.none_hash)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _xxh3_128(data: bytes) -> bytes:
    return xxhash.xxh3_128_digest(data)


def _hash_value(algo: str, value: object) -> bytes:
    """An algorithm applied to any value, as vLLM does to the seed."""
    if algo == "builtin":
        return _builtin_digest(_stable(value))
    serialized = encode_value(value) if "cbor" in algo else pickle.dumps(value, _PICKLE_PROTOCOL)
    digest = _xxh3_128(serialized) if algo.startswith("xxhash") else _sha256(serialized)
    return digest[-8:] if algo == "sha256_cbor_64bit" else digest


def _none_hash(algo: str, seed: str | None, version: Version, random_bytes: Callable[[int], bytes]) -> bytes:
    """The parent of a chain's first block."""
    if version < (0, 29, 0):
        if seed is None:
            return random_bytes(32)
        # 0.9 used SHA-256 for this one hash whatever the algorithm.
        return _hash_value("sha256" if version < (0, 10, 0) else algo, seed)
    if seed is None:
        seed = random_bytes(32).hex() if algo.startswith("xxhash") else _FIXED_SEED
    return _hash_value(algo, seed)


def _bind(algo: str, version: Version, none_hash: bytes) -> HashBlock:
    if version < (0, 10, 2):
        return _bind_integer(algo, none_hash)
    digest = _xxh3_128 if algo.startswith("xxhash") else _sha256
    return _bind_cbor(digest, none_hash) if algo.endswith("_cbor") else _bind_pickle(digest, none_hash)


def _bind_cbor(digest: Digest, none_hash: bytes) -> HashBlock:
    def hash_block(parent: bytes | None, token_ids: Sequence[int], extra_keys: tuple[Any, ...] | None = None) -> bytes:
        return digest(encode_block(parent or none_hash, token_ids, extra_keys or None))

    return hash_block


def _bind_pickle(digest: Digest, none_hash: bytes) -> HashBlock:
    dumps = pickle.dumps

    def hash_block(parent: bytes | None, token_ids: Sequence[int], extra_keys: tuple[Any, ...] | None = None) -> bytes:
        extra = _as_decoded(extra_keys) if extra_keys else None
        return digest(dumps((parent or none_hash, tuple(token_ids), extra), _PICKLE_PROTOCOL))

    return hash_block


_TAGS: Final = {tag: tag for tag in ("lora", "mm", "cache_salt", "prompt_embeds")}


def _as_decoded(extra_keys: tuple[Any, ...]) -> tuple[Any, ...]:
    """Equal keys whose strings are objects of their own, but for the tags, which are one object each.

    pickle writes an object it meets again as a reference, so the hash depends on which equal strings are one object. In
    vLLM the tags are literals of its source and everything else was decoded from the front end's message.
    """
    return tuple(_own_key(key) for key in extra_keys)


def _own_key(key: object) -> object:
    if isinstance(key, str):
        return key.encode().decode()
    if isinstance(key, tuple):
        return tuple(_TAGS[part] if not at and part in _TAGS else _own_key(part) for at, part in enumerate(key))
    return key


def _bind_integer(algo: str, none_hash: bytes) -> HashBlock:
    """Up to 0.10.1: the parent is hashed as an integer."""
    signed = algo == "builtin"

    def hash_block(parent: bytes | None, token_ids: Sequence[int], extra_keys: tuple[Any, ...] | None = None) -> bytes:
        before = parent or none_hash
        number = int.from_bytes(before, "big", signed=signed and len(before) == 8)
        return _hash_value(algo, (number, tuple(token_ids), _as_decoded(extra_keys) if extra_keys else None))

    return hash_block


def _stable(value: object) -> object:
    """The value with every string and bytes in it replaced by a number, for Python's `hash`."""
    if isinstance(value, tuple):
        return tuple(_stable(item) for item in value)
    if isinstance(value, str):
        return int.from_bytes(_sha256(value.encode())[:7], "big")
    if isinstance(value, bytes):
        return int.from_bytes(_sha256(value)[:7], "big")
    # hash(None) is an address before Python 3.12.
    return 0x_FCA8_6420 if value is None else value


def _builtin_digest(value: object) -> bytes:
    return hash(value).to_bytes(8, "big", signed=True)
