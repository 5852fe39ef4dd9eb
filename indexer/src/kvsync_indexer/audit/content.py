"""The prefix keys that an engine's own block table implies, to be compared with those in the index.

A digest covers hashes only, so it is equal even if the index takes a block of an adapter, of a cache salt or of a
picture for one of the base model. The prefix key of a block covers its model, its context and every token up to its
end. An engine that lists the tokens, the parent and the context of its blocks therefore says which key each of them
must have. The functions here are pure and take long for a large table: call them in a worker thread.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import msgspec

from kvsync_indexer.audit.engine import EngineBlock, hash_key
from kvsync_indexer.core.keys import local_hash, mix, root_key, split_extra, words

BlockKey: TypeAlias = tuple[int, int]
"""The 64-bit key of a hash, and the number of tokens in the block."""
Adapter: TypeAlias = Callable[[EngineBlock], str | None]


def reports_context(block: EngineBlock) -> bool:
    """Whether the engine says what the content of this block is: its parent, its tokens and its context."""
    said = (block.parent, block.token_ids)
    context = (block.lora_name, block.extra_keys)
    return msgspec.UNSET not in said and any(part is not msgspec.UNSET for part in context) and bool(block.token_ids)


def block_key(block: EngineBlock) -> BlockKey:
    """The identity of a block that reports its content; raises AuditError for a malformed hash."""
    return hash_key(block.hash), len(block.token_ids or ())


def expected_keys(blocks: Iterable[EngineBlock], model: str, seed: int) -> dict[BlockKey, frozenset[int]]:
    """The prefix keys that each block may have, for the blocks whose whole chain is listed.

    A block of an adapter has two: events before vLLM 0.14 give the adapter's number instead of its name.
    Raises AuditError for a malformed hash, and QueryError for extra keys that have no canonical form.
    """
    table = {block_key(block): block for block in blocks if reports_context(block)}
    names: list[Adapter] = [_name]
    if any(block.lora_id is not None for block in table.values()):
        names.append(_number)
    chains = [_chain_keys(table, name, model, seed) for name in names]
    return {at: frozenset(chain[at] for chain in chains if at in chain) for at in chains[0]}


def _name(block: EngineBlock) -> str | None:
    return block.lora_name or None


def _number(block: EngineBlock) -> str | None:
    return None if block.lora_id is None else str(block.lora_id)


def _chain_keys(table: Mapping[BlockKey, EngineBlock], adapter: Adapter, model: str, seed: int) -> dict[BlockKey, int]:
    """The keys of the blocks, from the first of each chain on. Chains that begin outside of the table are left out."""
    keys: dict[BlockKey, int | None] = {}
    for start in table:
        path: list[BlockKey] = []
        at: BlockKey | None = start
        while at is not None and at in table and at not in keys:
            keys[at] = None  # a chain that comes back to itself has no beginning
            path.append(at)
            at = _parent(table[at])
        above = None if at is None else keys.get(at)
        for one in reversed(path):
            if _parent(table[one]) is None or above is not None:
                above = keys[one] = _key(table[one], above, adapter, model, seed)
    return {at: key for at, key in keys.items() if key is not None}


def _parent(block: EngineBlock) -> BlockKey | None:
    if block.parent is None or block.parent is msgspec.UNSET:
        return None
    return hash_key(block.parent), len(block.token_ids or ())


def _key(block: EngineBlock, above: int | None, adapter: Adapter, model: str, seed: int) -> int:
    tokens = list(block.token_ids or ())
    salt, extra = split_extra(tuple(block.extra_keys or ()), _name(block), first=above is None)
    if above is None:
        above = root_key(model, adapter(block), block.cache_salt or salt, len(tokens), seed)
    return mix(above, local_hash(words(tokens), extra, seed))
