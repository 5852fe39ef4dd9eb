"""Stored events that name fewer hashes than their tokens have blocks: which block is each hash?

Engines leave blocks out that no match can end at: those before a sliding window, and the states of a recurrent layer
inside of a chunk. The event does not say which. If the group's block size is that of another group, the same hash in
that group tells. Otherwise the tokens do: the hash of a large block is the hash of the small block at its end, so a
hash whose content in another block size equals what the event's tokens give there is placed for certain. What precedes
such an anchor in the event lies directly before it, because engines keep the blocks of a window together.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from kvsync_events import BlockStored
from kvsync_indexer.core.blocks import block_id, engine_hash
from kvsync_indexer.core.chain import lora_of
from kvsync_indexer.core.keys import hash_blocks, mix, root_key, split_extra, words

KeyOf: TypeAlias = Callable[[int], int | None]
"""The prefix key of the block with this id, if it is resident and known."""


def is_sparse(event: BlockStored) -> bool:
    """Whether the event names fewer hashes than its tokens have blocks, and no extra keys besides the LoRA name."""
    if not 0 < len(event.block_hashes) < len(event.token_ids) // event.block_size:
        return False
    lora = lora_of(event)
    return not any(split_extra(entry, lora, first=False)[1] for entry in event.extra_keys or ())


def place_hashes(
    event: BlockStored, sizes: Sequence[int], model: str, seed: int, key_of: KeyOf
) -> list[tuple[int, int, int | None]]:
    """What is known of the hashes of a sparse event: position in the event, prefix key, and the parent's prefix key.

    `sizes` are the publisher's block sizes. The parent's key is None for the first block of a chain.
    """
    keys = {number: _chain(event, size, number, model, seed, key_of) for number, size in enumerate(sizes)}
    own = keys[sizes.index(event.block_size)]
    places = _places(event, sizes, keys, key_of)
    if not own or places is None:
        return []
    base = None if event.parent_block_hash is None else key_of(_parent_id(event, sizes.index(event.block_size)))
    return [(at, own[place], own[place - 1] if place else base) for at, place in sorted(places.items())]


def _parent_id(event: BlockStored, number: int) -> int:
    assert event.parent_block_hash is not None
    return block_id(engine_hash(event.parent_block_hash), number)


def _chain(event: BlockStored, size: int, number: int, model: str, seed: int, key_of: KeyOf) -> list[int]:
    """The prefix keys of the event's tokens in blocks of `size`; empty if what precedes them is not known."""
    if event.parent_block_hash is None:
        key: int | None = root_key(model, lora_of(event), None, size, seed)
    else:
        key = key_of(_parent_id(event, number))
    if key is None:
        return []
    keys = []
    for local_hash in hash_blocks(words(event.token_ids), size, (), None, seed, starts_chain=False)[1]:
        key = mix(key, local_hash)
        keys.append(key)
    return keys


def _places(
    event: BlockStored, sizes: Sequence[int], keys: dict[int, list[int]], key_of: KeyOf
) -> dict[int, int] | None:
    """The block of the event's tokens that a hash stands for, by the position of the hash; None for a contradiction."""
    ends = {
        number: {
            key: (at + 1) * size // event.block_size - 1
            for at, key in enumerate(keys[number])
            if (at + 1) * size % event.block_size == 0
        }
        for number, size in enumerate(sizes)
        if size != event.block_size
    }
    places: dict[int, int] = {}
    following: int | None = None
    for at in range(len(event.block_hashes) - 1, -1, -1):
        hashed = engine_hash(event.block_hashes[at])
        anchor = next((ends[n][key] for n in ends if (key := key_of(block_id(hashed, n))) in ends[n]), None)
        place = anchor if anchor is not None else None if following is None else following - 1
        if place is None:
            continue
        if place < at or (following is not None and place >= following):
            return None
        places[at] = following = place
    return places
