"""The index's own keys: what a block is, computed from tokens and context and never from engine hashes.

    root    = XXH3-64(canonical(model, LoRA, cache salt, block size), seed)
    text_i  = XXH3-64(tokens of block i as little-endian u32 [+ canonical(extra keys of block i)], seed')
    key_i   = mix(key_{i-1}, text_i),  key_{-1} = root

Texts do not depend on each other, so a prompt's can be computed in parallel, and a block that waits for its parent is
remembered by its text alone. `mix` folds a 128-bit product, as wyhash does, and adds both inputs once more so that
neither can be cancelled by the other.

A key is 64 bits and not cryptographic. With n distinct blocks in the index, the chance that any two share a key is
about n^2 / 2^65 (3e-6 at ten million), and that a query's first missing block is taken for another is n / 2^64 a query.
The price of such a collision is a match that is too long, which the engine corrects by computing; nothing else depends
on it. A seed that outsiders do not know makes collisions hard to construct. XXH3: github.com/Cyan4973/xxHash.
"""

import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, Final

from xxhash import xxh3_64_intdigest

from kvsync_indexer.core.errors import QueryError
from kvsync_indexer.core.protocol import Context, Tokens

MASK_64: Final = (1 << 64) - 1
_FOLD_PARENT: Final = 0xA0761D6478BD642F
_FOLD_TEXT: Final = 0xE7037ED1A0B428DB
_PLAIN: Final = 0x8EBC6AF09C88C6E3
_KEYED: Final = 0x589965CC75374CC3
_KEYED_TAIL: Final = struct.Struct("<I")


def mix(parent: int, text: int) -> int:
    """The key of the block with this text after this parent."""
    product = (parent ^ _FOLD_PARENT) * (text ^ _FOLD_TEXT)
    turned = (text << 29 | text >> 35) & MASK_64
    return (product >> 64) ^ (product & MASK_64) ^ parent ^ turned


def root_key(model: str, lora: str | None, salt: str | None, block_size: int, seed: int) -> int:
    """What the first block of a chain has for a parent."""
    return xxh3_64_intdigest(canonical((model, lora, salt, block_size)), seed & MASK_64)


def text_of(tokens: bytes | memoryview, extra: tuple[Any, ...], seed: int) -> int:
    """One block: its tokens as little-endian u32 and, if it has any, its own extra keys."""
    if not extra:
        return xxh3_64_intdigest(tokens, (seed ^ _PLAIN) & MASK_64)
    body = bytes(tokens) + canonical(extra) + _KEYED_TAIL.pack(len(tokens))
    return xxh3_64_intdigest(body, (seed ^ _KEYED) & MASK_64)


def canonical(parts: tuple[Any, ...]) -> bytes:
    """Bytes that two tuples of scalars (and of tuples of scalars) share only if they are equal.

    A tag byte a value, lengths in front: N null, T true, F false, I integer (16 bytes, little-endian, signed), D double
    (8 bytes), S text (UTF-8), B bytes, L sequence. Raises QueryError on anything else.
    """
    out = bytearray()
    for part in parts:
        _append(out, part)
    return bytes(out)


def _append(out: bytearray, part: object) -> None:
    if part is None:
        out += b"N"
    elif isinstance(part, bool):
        out += b"T" if part else b"F"
    elif isinstance(part, int):
        if not -(1 << 127) <= part < 1 << 127:
            raise QueryError("an extra key's integer does not fit in 128 bits")
        out += b"I" + part.to_bytes(16, "little", signed=True)
    elif isinstance(part, float):
        out += b"D" + struct.pack("<d", part)
    elif isinstance(part, str):
        try:
            _append_sized(out, b"S", part.encode())
        except UnicodeEncodeError:
            raise QueryError("an extra key's text is no valid Unicode") from None
    elif isinstance(part, bytes):
        _append_sized(out, b"B", part)
    elif isinstance(part, (tuple, list)):
        out += b"L" + _KEYED_TAIL.pack(len(part))
        for inner in part:
            _append(out, inner)
    else:
        kind = type(part).__name__
        raise QueryError(f"an extra key must be text, bytes, a number, null or a tuple of those, not {kind}")


def _append_sized(out: bytearray, tag: bytes, body: bytes) -> None:
    out += tag
    out += _KEYED_TAIL.pack(len(body))
    out += body


def split_extra(entry: tuple[Any, ...] | None, lora: str | None, first: bool) -> tuple[str | None, tuple[Any, ...]]:
    """Cache salt and own extra keys of a block, from the engine's entry for it.

    The engine lists LoRA name, multimodal keys, cache salt (chain's first block only) and embeddings digest, untagged.
    The LoRA name is part of the context already; the last bare text of a first block is the salt.
    """
    if not entry:
        return None, ()
    own = list(entry)
    if lora is not None and type(own[0]) is str and own[0] == lora:
        del own[0]
    if first:
        for at in range(len(own) - 1, -1, -1):
            if type(own[at]) is str:
                return own.pop(at), tuple(own)
    return None, tuple(own)


def token_bytes(tokens: Tokens, limit: int) -> bytes:
    """Any accepted form of token ids as little-endian u32. Raises QueryError."""
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


def query_keys(context: Context, raw: bytes, block_size: int, seed: int) -> list[int]:
    """The keys of a prompt's full blocks."""
    key, texts = query_texts(context, raw, block_size, seed)
    keys = []
    for text in texts:
        key = mix(key, text)
        keys.append(key)
    return keys


def query_texts(context: Context, raw: bytes, block_size: int, seed: int) -> tuple[int, list[int]]:
    """The root's key and the texts of a prompt's full blocks; tokens as `token_bytes` gives them."""
    extra_keys = context.extra_keys or ()
    width = 4 * block_size
    salt = context.cache_salt
    if extra_keys:
        texts = []
        for at, tokens in enumerate(_blocks(raw, width)):
            entry = extra_keys[at] if at < len(extra_keys) else None
            named, own = split_extra(entry, context.lora, first=at == 0)
            salt = salt if salt is not None else named
            texts.append(text_of(tokens, own, seed))
    else:
        plain = (seed ^ _PLAIN) & MASK_64
        texts = [xxh3_64_intdigest(tokens, plain) for tokens in _blocks(raw, width)]
    return root_key(context.model, context.lora, salt, block_size, seed), texts


def _blocks(raw: bytes, width: int) -> Iterator[memoryview]:
    view = memoryview(raw)
    for at in range(0, len(raw) - width + 1, width):
        yield view[at : at + width]
