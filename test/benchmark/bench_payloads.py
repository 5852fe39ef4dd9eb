"""Generates seeded event batches as bytes, quickly, since every benchmark process generates its own.

Hashes are random 64-bit numbers. Token ids are above 65,535, so that each takes five bytes on the wire, as with large
vocabularies.
"""

import random
import struct
from array import array

from kvsync_events import BlockRemoved, BlockStored, EventBatch, WireForm, encode_batch

BLOCK_SIZE = 16
FORM = WireForm.for_version("0.33.0")


def make_hashes(count: int, rng: random.Random) -> list[int]:
    """Return random block hashes."""
    return array("Q", rng.randbytes(8 * count)).tolist()


def make_tokens(count: int, rng: random.Random) -> list[int]:
    """Return random token ids from 65,536 to 131,071."""
    return [65_536 | token for token in array("H", rng.randbytes(2 * count))]


def encode_stored(hashes: list[int], tokens: list[int], at_s: float = 0.0) -> bytes:
    """Return a batch of one event that stores a chain from its root."""
    event = BlockStored(hashes, None, tokens, BLOCK_SIZE, medium="GPU")
    return encode_batch(EventBatch(at_s, [event], 0), FORM)


def encode_removed(hashes: list[int]) -> bytes:
    """Return a batch of one event that removes blocks."""
    return encode_batch(EventBatch(0.0, [BlockRemoved(hashes, medium="GPU")], 0), FORM)


def make_chains(blocks: int, per_event: int, seed: int = 1) -> list[tuple[list[int], list[int]]]:
    """Return hashes and tokens of `blocks` distinct blocks in chains of `per_event`."""
    rng = random.Random(seed)
    return [
        (make_hashes(per_event, rng), make_tokens(per_event * BLOCK_SIZE, rng)) for _ in range(0, blocks, per_event)
    ]


def stored_payloads(blocks: int, per_event: int, seed: int = 1) -> list[bytes]:
    """Return batches of one event that store the chains of `make_chains`."""
    return [encode_stored(hashes, tokens) for hashes, tokens in make_chains(blocks, per_event, seed)]


def stamp(payload: bytes, at_s: float) -> bytes:
    """Return the batch with another time, which is the first element of the array, after two bytes."""
    return payload[:2] + struct.pack(">d", at_s) + payload[10:]
