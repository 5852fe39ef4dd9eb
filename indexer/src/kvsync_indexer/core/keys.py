"""The index's own keys: what a block is, computed from tokens and context and never from engine hashes.

    root          = XXH3-64(canonical(model, LoRA, cache salt, block size), seed)
    local_hash_i  = XXH3-64(tokens of block i as little-endian u32 [+ canonical(extra keys of block i)], seed')
    prefix_key_i  = mix(prefix_key_{i-1}, local_hash_i),  prefix_key_{-1} = root

Local hashes do not depend on each other, so those of a prompt can be computed in parallel, and a block that waits for
its parent needs only its local hash. `mix` folds a 128-bit product, as wyhash does, and adds both inputs once more, so
that neither can cancel the other.

A key has 64 bits and is not cryptographic. With n distinct blocks in the index, the probability that any two share a
key is about n^2 / 2^65 (3e-6 for ten million blocks), and the probability that the first missing block of a query is
taken for another one is n / 2^64 per query. The consequence is a match that is too long, which the engine corrects by
computing the rest; nothing else depends on it. Collisions are hard to construct for those who do not know the seed.
XXH3: github.com/Cyan4973/xxHash.
"""

import struct
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from xxhash import xxh3_64_intdigest

from kvsync_events import canonical
from kvsync_events.digest import splitmix64
from kvsync_indexer.core.errors import QueryError
from kvsync_indexer.core.protocol import Context, Tokens

MASK_64: Final = (1 << 64) - 1
_FOLD_PARENT: Final = 0xA0761D6478BD642F
_FOLD_LOCAL: Final = 0xE7037ED1A0B428DB
_PLAIN: Final = 0x8EBC6AF09C88C6E3
_KEYED: Final = 0x589965CC75374CC3
_LENGTH: Final = struct.Struct("<I")


def mix(parent_key: int, local_hash: int) -> int:
    """The prefix key of the block with this local hash after the block with this key."""
    product = (parent_key ^ _FOLD_PARENT) * (local_hash ^ _FOLD_LOCAL)
    rotated = (local_hash << 29 | local_hash >> 35) & MASK_64
    return (product >> 64) ^ (product & MASK_64) ^ parent_key ^ rotated


def identity_key(hashed: int) -> int:
    """The prefix key of a block whose engine hash identifies it with everything before it (`IndexCore.apply_runs`).

    Such hashes may be small consecutive numbers, which tables need spread out.
    """
    return splitmix64(hashed)


def root_key(model: str, lora: str | None, salt: str | None, block_size: int, seed: int) -> int:
    """The key that the first block of a chain has for its parent."""
    return xxh3_64_intdigest(_canonical((model, lora, salt, block_size)), seed & MASK_64)


def local_hash(tokens: bytes | memoryview, extra: tuple[Any, ...], seed: int) -> int:
    """The hash of one block: its tokens as little-endian u32, and its extra keys if it has any."""
    if not extra:
        return xxh3_64_intdigest(tokens, (seed ^ _PLAIN) & MASK_64)
    body = bytes(tokens) + _canonical(tuple(map(_opaque, extra))) + _LENGTH.pack(len(tokens))
    return xxh3_64_intdigest(body, (seed ^ _KEYED) & MASK_64)


def _opaque(part: object) -> object:
    """An extra key as events have it: maps as their canonical bytes."""
    if isinstance(part, Mapping):
        return _canonical((part,))
    if isinstance(part, (tuple, list)):
        return tuple(_canonical((item,)) if isinstance(item, Mapping) else item for item in part)
    return part


def _canonical(parts: tuple[object, ...]) -> bytes:
    """The canonical bytes of extra keys; raises QueryError."""
    try:
        return canonical(parts)
    except ValueError as error:
        raise QueryError(str(error)) from None


def split_extra(entry: tuple[Any, ...] | None, lora: str | None, first: bool) -> tuple[str | None, tuple[Any, ...]]:
    """The cache salt and the extra keys of a block, from the engine's entry for it.

    The engine lists the LoRA name, multimodal keys, the cache salt (of a chain's first block only) and a digest of
    embeddings, without saying which is which. The LoRA name is part of the context already; the last bare text of a
    first block is the salt.
    """
    if not entry:
        return None, ()
    extra = list(entry)
    if lora is not None and type(extra[0]) is str and extra[0] == lora:
        del extra[0]
    if first:
        for at in range(len(extra) - 1, -1, -1):
            if type(extra[at]) is str:
                return extra.pop(at), tuple(extra)
    return None, tuple(extra)


def token_bytes(tokens: Tokens, limit: int) -> bytes:
    """Token ids in any accepted form as little-endian u32; raises QueryError."""
    raw = _raw_tokens(tokens)
    if len(raw) > 4 * limit:
        raise QueryError(f"{len(raw) // 4} tokens in a query, over the limit of {limit}")
    return raw


def _raw_tokens(tokens: Tokens) -> bytes:
    if isinstance(tokens, (list, tuple)):
        try:
            return words(tokens)
        except (OverflowError, TypeError) as error:
            raise QueryError(f"token ids must be integers from 0 to 4294967295: {error}") from None
    try:
        view = memoryview(tokens)  # type: ignore[arg-type]
    except TypeError:
        raise QueryError(f"tokens must be a list, a buffer or bytes, not {type(tokens).__name__}") from None
    if view.itemsize == 1 and view.nbytes % 4 == 0:
        return view.tobytes()
    if view.itemsize == 4 and view.format.lstrip("@=<") in ("I", "i", "L", "l"):
        return view.tobytes() if sys.byteorder == "little" else words(view.cast("B").cast("I").tolist())
    raise QueryError("tokens must be 32-bit integers, or bytes in a multiple of 4")


def words(tokens: Sequence[int]) -> bytes:
    """Token ids as little-endian u32."""
    packed = array("I", tokens)
    if sys.byteorder != "little":
        packed.byteswap()
    return packed.tobytes()


def hash_blocks(
    raw: bytes,
    block_size: int,
    extra_keys: Sequence[tuple[Any, ...] | None],
    lora: str | None,
    seed: int,
    *,
    starts_chain: bool,
) -> tuple[str | None, list[int]]:
    """The cache salt that the extra keys of a chain name, and the local hashes of its full blocks.

    `extra_keys` has an entry per block, as the engine forms it, and may be shorter; `starts_chain` says whether the
    first block is the first of its chain.
    """
    blocks = _blocks(raw, 4 * block_size)
    if not extra_keys:
        plain = (seed ^ _PLAIN) & MASK_64
        return None, [xxh3_64_intdigest(tokens, plain) for tokens in blocks]
    salt, hashes = None, []
    for at, tokens in enumerate(blocks):
        entry = extra_keys[at] if at < len(extra_keys) else None
        named, extra = split_extra(entry, lora, first=starts_chain and at == 0)
        salt = salt if salt is not None else named
        hashes.append(local_hash(tokens, extra, seed))
    return salt, hashes


def prompt_keys(context: Context, raw: bytes, block_size: int, seed: int) -> list[int]:
    """The prefix keys of a prompt's full blocks; `raw` are its tokens as `token_bytes` gives them."""
    salt, hashes = hash_blocks(raw, block_size, context.extra_keys or (), context.lora, seed, starts_chain=True)
    salt = context.cache_salt if context.cache_salt is not None else salt
    key = root_key(context.model, context.lora, salt, block_size, seed)
    keys = []
    for hashed in hashes:
        key = mix(key, hashed)
        keys.append(key)
    return keys


def _blocks(raw: bytes, width: int) -> Iterator[memoryview]:
    view = memoryview(raw)
    for at in range(0, len(raw) - width + 1, width):
        yield view[at : at + width]
