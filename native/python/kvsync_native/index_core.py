"""The native core as `kvsync_indexer.core.IndexCore` defines it.

The compiled part takes and returns plain values and imports nothing of the indexer. This module takes limits, contexts
and batches apart for it, and gives it the classes that its results and errors are made of.
"""

import struct
from array import array
from collections.abc import Collection, Sequence
from typing import Final

from kvsync_events import DecodeError, EventBatch
from kvsync_indexer.core.errors import (
    LimitError,
    PublisherConflictError,
    QueryError,
    SnapshotError,
    UnknownPublisherError,
)
from kvsync_indexer.core.keys import prompt_keys, token_bytes
from kvsync_indexer.core.protocol import (
    Applied,
    BlockRow,
    Context,
    CoreLimits,
    CoreStats,
    DigestRow,
    Match,
    Tokens,
)
from kvsync_native._core import NativeIndex
from kvsync_native.batches import encode

_RESULTS: Final = (Applied, BlockRow, DigestRow, CoreStats, Match)
_ERRORS: Final = (
    DecodeError,
    UnknownPublisherError,
    PublisherConflictError,
    LimitError,
    QueryError,
    SnapshotError,
)


class IndexCore(NativeIndex):
    """See `kvsync_indexer.core.IndexCore` for what each method promises."""

    __slots__ = ()

    def __new__(cls, limits: CoreLimits | None = None, seed: int = 0) -> "IndexCore":
        """An empty core."""
        limits = limits or CoreLimits()
        wire = limits.wire
        return super().__new__(
            cls,
            results=_RESULTS,
            errors=_ERRORS,
            seed=seed,
            max_publishers=limits.max_publishers,
            max_blocks=limits.max_blocks,
            max_orphans=limits.max_orphans,
            max_remembered=limits.max_remembered,
            max_query_tokens=limits.max_query_tokens,
            max_payload_bytes=wire.max_payload_bytes,
            max_events=wire.max_events,
            max_hashes=wire.max_hashes,
            max_tokens=wire.max_tokens,
            max_hash_bytes=wire.max_hash_bytes,
            max_text_bytes=wire.max_text_bytes,
            max_block_size=wire.max_block_size,
            max_key_parts=wire.max_key_parts,
        )

    def apply_batch(self, publisher: str, batch: EventBatch) -> Applied:
        """Apply a decoded batch."""
        return self.apply(publisher, encode(batch))._replace(unknown_events=batch.unknown_events)

    def match_converted(
        self, context: Context, tokens: Tokens, publishers: Collection[str] | None = None
    ) -> Sequence[Match]:
        """`match` for extra keys, and for tokens in a form that the compiled part does not read."""
        raw = token_bytes(tokens, self.max_query_tokens)
        if context.extra_keys is None:
            return self.match_prompt(context.model, context.lora, context.cache_salt, raw, publishers)
        chains = [(size, self._keys(context, raw, size)) for size in self.block_sizes(context.model)]
        return self.match_chains(context.model, chains, publishers)

    def query_keys(self, context: Context, tokens: Tokens, block_size: int) -> bytes:
        """The prefix keys of a prompt."""
        if context.extra_keys is None:
            buffer = self._buffer(tokens)
            return self.prompt_keys(context.model, context.lora, context.cache_salt, buffer, block_size)
        if block_size <= 0:
            raise QueryError("block_size must be positive")
        return self._keys(context, token_bytes(tokens, self.max_query_tokens), block_size)

    def _buffer(self, tokens: Tokens) -> "bytes | array[int]":
        """Tokens in a form that the compiled part reads: bytes, or an array of unsigned 32-bit integers."""
        if isinstance(tokens, bytes) or (isinstance(tokens, array) and tokens.typecode == "I"):
            return tokens
        return token_bytes(tokens, self.max_query_tokens)

    def _keys(self, context: Context, raw: bytes, block_size: int) -> bytes:
        keys = prompt_keys(context, raw, block_size, self.seed)
        return struct.pack(f"<{len(keys)}Q", *keys)
