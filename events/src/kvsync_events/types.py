"""The events as values: what a publisher says and an index reads, free of any encoding.

Field names and order are vLLM's (`vllm/distributed/kv_events.py`, 0.33.0); each field says since which version it is on
the wire. The same three classes serve every version: a field a version does not have is None.
"""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

Hash: TypeAlias = int | bytes
"""A block hash as on the wire: an integer (unsigned 64 bits from vLLM, signed from SGLang) or the raw digest."""

ExtraKeys: TypeAlias = tuple[Any, ...]
"""The keys besides the tokens that identify one block: LoRA name, `(mm_id, offset)`, cache salt, embeds digest."""


@dataclass(slots=True)
class BlockStored:
    """Blocks have become resident: `block_hashes` in chain order, each the parent of the next.

    `token_ids` are the tokens of all the blocks, one after the other (`block_size` tokens a block). Masked blocks of
    hybrid models are missing from `block_hashes` while their tokens are there; an offload event may carry hashes only
    (`block_size` 0, no tokens).
    """

    block_hashes: list[Hash]
    parent_block_hash: Hash | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None = None
    medium: str | None = None
    """0.10.2: `GPU`, `CPU`, `STORAGE`; other engines have other names."""
    lora_name: str | None = None
    """0.14."""
    extra_keys: list[ExtraKeys | None] | None = None
    """0.17: one entry a block."""
    group_idx: int | None = None
    """0.20: the cache group of a hybrid model."""
    kv_cache_spec_kind: str | None = None
    """0.21: `full_attention`, `sliding_window`, `mamba`, …"""
    kv_cache_spec_sliding_window: int | None = None
    """0.21: tokens."""
    locality: str | None = None
    """0.26: `LOCAL` or `REMOTE`, as seen from the publisher."""
    ownership: str | None = None
    """0.29: the secondary offloading tier that generated the event."""
    session_id: str | None = None
    """0.30."""
    lookahead_token_ids: list[list[int]] | None = None
    """0.33: tokens beyond each block that its hash covers, one list a block."""


@dataclass(slots=True)
class BlockRemoved:
    """One copy of each of these blocks is gone."""

    block_hashes: list[Hash]
    medium: str | None = None
    group_idx: int | None = None
    locality: str | None = None
    ownership: str | None = None


@dataclass(slots=True)
class AllBlocksCleared:
    """Every block is gone; with a `medium` (not vLLM's, seen from other engines) only those of that tier."""

    medium: str | None = None


Event: TypeAlias = BlockStored | BlockRemoved | AllBlocksCleared


@dataclass(slots=True)
class EventBatch:
    """What one engine step announced, in order.

    `ts` is wall time in seconds. The two counters are the decoder's: events whose tag nobody knows (left out of
    `events`), and stored events whose token ids were no plain integers (kept, with `token_ids` empty).
    """

    ts: float
    events: list[Event] = field(default_factory=list)
    data_parallel_rank: int | None = None
    unknown_events: int = 0
    opaque_tokens: int = 0
