"""What the tokens of a stored event say about its blocks: pure functions from an event to hashes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kvsync_events import BlockRemoved, BlockRun, BlockStored, StoredRun
from kvsync_indexer.core.keys import hash_blocks, root_key, words


@dataclass(frozen=True, slots=True)
class Chain:
    """The blocks of a stored event."""

    root: int | None
    """The prefix key that the first block follows, if the event starts a chain."""
    local_hashes: list[int]
    """One per block."""


def has_chain(event: BlockStored) -> bool:
    """Whether the event says for certain which tokens and extra keys each of its hashes stands for."""
    blocks = len(event.block_hashes)
    return (
        blocks > 0
        and len(event.token_ids) // event.block_size == blocks
        and (event.extra_keys is None or len(event.extra_keys) == blocks)
    )


def lora_of(event: BlockStored) -> str | None:
    """The LoRA adapter of the event: its name, or else its number in digits."""
    if event.lora_name is not None:
        return event.lora_name
    return None if event.lora_id is None else str(event.lora_id)


def read_chain(event: BlockStored, model: str, seed: int) -> Chain:
    """The chain of an event for which `has_chain` is true."""
    starts_chain = event.parent_block_hash is None
    lora = lora_of(event)
    raw = words(event.token_ids[: len(event.block_hashes) * event.block_size])
    salt, hashes = hash_blocks(raw, event.block_size, event.extra_keys or (), lora, seed, starts_chain=starts_chain)
    root = root_key(model, lora, salt, event.block_size, seed) if starts_chain else None
    return Chain(root, hashes)


def run_events(block_size: int, runs: Sequence[BlockRun]) -> Iterator[BlockStored | BlockRemoved]:
    """Runs as events without tokens, of the only cache group of the engine."""
    for run in runs:
        if isinstance(run, StoredRun):
            yield BlockStored(list(run.hashes), run.parent, [], block_size, medium=run.medium, group_idx=0)
        else:
            yield BlockRemoved(list(run.hashes), medium=run.medium, group_idx=0)
