"""vLLM's block hashes, which a mock engine announces and golden vectors pin.

`H_i = hash((parent, tuple(tokens), extra keys or None))`, and the first parent is NONE_HASH. An index treats the hashes
as opaque. It could not recompute them, because events from 0.31 on do not carry the LoRA path that is hashed. Sources:
`hash_block_tokens`, `init_none_hash` and `vllm/utils/hashing.py` of the releases 0.9.0 to 0.33.0.

Up to 0.10.1 vLLM's hashes were integers. This module represents them as bytes too: 32 bytes for `sha256` (which that
version then fails to send), 8 for `sha256_cbor_64bit`, and 8 as a signed number for `builtin`. Python's `hash` of a
string differs between processes, so `builtin` replaces strings by stable numbers; no other process could know vLLM's.
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
"""The value of pickle.HIGHEST_PROTOCOL in every Python that vLLM supports."""
_FIXED_SEED: Final = "vllm-none-hash"

Digest = Callable[[bytes], bytes]


class HashBlock(Protocol):
    """A function that hashes one full block. `parent` is None for the first block of a chain."""

    def __call__(
        self, parent: bytes | None, token_ids: Sequence[int], extra_keys: tuple[Any, ...] | None = None
    ) -> bytes:
        """Return the digest: 32 bytes with sha256, 16 with xxh3-128, 8 with the 64-bit algorithms up to 0.10.1."""
        ...


def hash_algorithms(vllm_version: str = NEWEST_VERSION) -> tuple[str, ...]:
    """Return the values that `--prefix-caching-hash-algo` accepts in this version, the default first."""
    version = parse_version(vllm_version)
    if version < (0, 10, 0):
        return ("builtin", "sha256")
    if version < (0, 10, 2):
        return ("builtin", "sha256", "sha256_cbor_64bit")
    if version < (0, 13, 0):
        return ("sha256", "sha256_cbor")
    return ("sha256", "sha256_cbor", "xxhash", "xxhash_cbor")


def event_hash(digest: bytes) -> int:
    """Return the integer that represents a digest in events from 0.10.2 on: its low 64 bits, unsigned."""
    return int.from_bytes(digest[-8:], "big")


class BlockHasher:
    """The hash function of one engine process.

    `hash_block` is bound once to the algorithm and the first parent. Call it directly, since a wrapper would cost time
    for every block.

    Args:
        algo: One of `hash_algorithms(vllm_version)`.
        seed: PYTHONHASHSEED, or None if it is unset. The first parent is then random, except for the SHA-256
            algorithms from 0.29 on.
        vllm_version: The version whose rules apply.
        random_bytes: The source of that randomness; `os.urandom` by default.

    Raises:
        HashingError: the version does not have the algorithm.
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
    """Apply an algorithm to any value, as vLLM does with the seed."""
    if algo == "builtin":
        return _builtin_digest(_stable(value))
    serialized = encode_value(value) if "cbor" in algo else pickle.dumps(value, _PICKLE_PROTOCOL)
    digest = _xxh3_128(serialized) if algo.startswith("xxhash") else _sha256(serialized)
    return digest[-8:] if algo == "sha256_cbor_64bit" else digest


def _none_hash(algo: str, seed: str | None, version: Version, random_bytes: Callable[[int], bytes]) -> bytes:
    """Return the parent of the first block of a chain."""
    if version < (0, 29, 0):
        if seed is None:
            return random_bytes(32)
        # 0.9 computed this one hash with SHA-256, whatever the algorithm was.
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
    """Return equal keys in which each string is a separate object, except for the tags, which are one object each.

    pickle writes a repeated object as a reference, so that the hash depends on which equal strings are the same object.
    In vLLM the tags are literals of the source, and every other string was decoded from a message of the front end.
    """
    return tuple(_own_key(key) for key in extra_keys)


def _own_key(key: object) -> object:
    if isinstance(key, str):
        return key.encode().decode()
    if isinstance(key, tuple):
        return tuple(_TAGS[part] if not at and part in _TAGS else _own_key(part) for at, part in enumerate(key))
    return key


def _bind_integer(algo: str, none_hash: bytes) -> HashBlock:
    """Return the hash function of versions up to 0.10.1, which hash the parent as an integer."""
    signed = algo == "builtin"

    def hash_block(parent: bytes | None, token_ids: Sequence[int], extra_keys: tuple[Any, ...] | None = None) -> bytes:
        before = parent or none_hash
        number = int.from_bytes(before, "big", signed=signed and len(before) == 8)
        return _hash_value(algo, (number, tuple(token_ids), _as_decoded(extra_keys) if extra_keys else None))

    return hash_block


def _stable(value: object) -> object:
    """Replace every string and bytes object in a value by a number, for Python's `hash`."""
    if isinstance(value, tuple):
        return tuple(_stable(item) for item in value)
    if isinstance(value, str):
        return int.from_bytes(_sha256(value.encode())[:7], "big")
    if isinstance(value, bytes):
        return int.from_bytes(_sha256(value)[:7], "big")
    # Before Python 3.12, hash(None) is a memory address.
    return 0x_FCA8_6420 if value is None else value


def _builtin_digest(value: object) -> bytes:
    return hash(value).to_bytes(8, "big", signed=True)
