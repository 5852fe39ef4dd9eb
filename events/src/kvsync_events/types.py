"""The events as Python values, independent of any encoding.

Field names and their order are vLLM's (`vllm/distributed/kv_events.py`, 0.33.0), and each field names the first version
that sends it. The same three classes represent the events of every version. A field that a version does not have is
None.
"""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

Hash: TypeAlias = int | bytes
"""A block hash as it is sent: an integer (unsigned 64 bits from vLLM, signed from SGLang) or the raw digest."""

ExtraKeys: TypeAlias = tuple[Any, ...]
"""The keys that identify one block besides its tokens.

They are the LoRA name, `(mm_id, offset)` per multimodal input, the cache salt and the digest of prompt embeddings.
"""


@dataclass(slots=True)
class BlockStored:
    """Blocks have become resident. `block_hashes` is in chain order: each block is the parent of the next.

    `token_ids` are the tokens of all the blocks in order, `block_size` tokens per block. Masked blocks of hybrid models
    are missing from `block_hashes`, although their tokens are present. An offload event may carry hashes only, with
    `block_size` 0 and no tokens.
    """

    block_hashes: list[Hash]
    parent_block_hash: Hash | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None = None
    medium: str | None = None
    """From 0.10.2: `GPU`, `CPU` or `STORAGE`. Other engines use other names."""
    lora_name: str | None = None
    """From 0.14."""
    extra_keys: list[ExtraKeys | None] | None = None
    """From 0.17: one entry per block."""
    group_idx: int | None = None
    """From 0.20: the cache group of a hybrid model."""
    kv_cache_spec_kind: str | None = None
    """From 0.21: `full_attention`, `sliding_window`, `mamba` and others."""
    kv_cache_spec_sliding_window: int | None = None
    """From 0.21: the size of the window in tokens."""
    locality: str | None = None
    """From 0.26: `LOCAL` or `REMOTE`, as seen from the publisher."""
    ownership: str | None = None
    """From 0.29: the secondary offloading tier that generated the event."""
    session_id: str | None = None
    """From 0.30."""
    lookahead_token_ids: list[list[int]] | None = None
    """From 0.33: the tokens beyond each block that its hash covers, one list per block."""


@dataclass(slots=True)
class BlockRemoved:
    """One copy of each of these blocks has been removed."""

    block_hashes: list[Hash]
    medium: str | None = None
    group_idx: int | None = None
    locality: str | None = None
    ownership: str | None = None


@dataclass(slots=True)
class AllBlocksCleared:
    """Every block has been removed, or every block of one tier if a `medium` is given, which only other engines do."""

    medium: str | None = None


Event: TypeAlias = BlockStored | BlockRemoved | AllBlocksCleared


@dataclass(slots=True)
class EventBatch:
    """The events of one engine step, in order.

    `ts` is wall-clock time in seconds. The decoder sets the two counters: `unknown_events` counts events with an
    unknown tag, which are not in `events`, and `opaque_tokens` counts stored events whose token ids are not plain
    integers, which are in `events` with empty `token_ids`.
    """

    ts: float
    events: list[Event] = field(default_factory=list)
    data_parallel_rank: int | None = None
    unknown_events: int = 0
    opaque_tokens: int = 0
