"""Block identity: the hash of each block of a sequence, and the extra keys that its event carries.

The hash function is vLLM's and is implemented in `kvsync_events`. This module decides which extra keys apply to which
block of a request, and computes each hash once, when it is first needed.
"""

from collections.abc import Callable
from typing import Any, Protocol

from kvsync_events import BlockHasher, event_extra_keys, hash_extra_keys
from kvsync_mockpod.engine.api import Request
from kvsync_mockpod.engine.sequence import Sequence


class BlockIdentity(Protocol):
    """Supplies block hashes. A hash must identify the block's whole prefix."""

    needs_tokens: bool
    """Whether the hashes of blocks with output tokens depend on the token ids."""

    def extend(self, seq: Sequence, blocks: int) -> list[bytes]:
        """The sequence's hashes, computed for at least the first `blocks` blocks, which must be full."""
        ...

    def event_keys(self, request: Request, first: int, stop: int) -> list[tuple[Any, ...] | None] | None:
        """Extra keys of blocks `[first, stop)` as events carry them, one entry per block."""
        ...


class HashedIdentity:
    """vLLM's block identity: hashes over parent, tokens and extra keys."""

    needs_tokens = True

    def __init__(
        self,
        *,
        block_size: int,
        algo: str,
        seed: str | None,
        vllm_version: str,
        random_bytes: Callable[[int], bytes] | None = None,
    ) -> None:
        self.block_size = block_size
        self._version = vllm_version
        self._hasher = BlockHasher(algo=algo, seed=seed, vllm_version=vllm_version, random_bytes=random_bytes)

    @property
    def none_hash(self) -> bytes:
        """The parent of every first block."""
        return self._hasher.none_hash

    def extend(self, seq: Sequence, blocks: int) -> list[bytes]:
        """The sequence's hashes, computed for at least the first `blocks` blocks, which must be full."""
        hashes = seq.known_hashes()
        size = self.block_size
        plain = not _has_keys(seq.request)
        hash_block = self._hasher.hash_block
        for i in range(len(hashes), blocks):
            keys = None if plain else self._hash_keys(seq.request, i)
            parent = hashes[i - 1] if i else None
            hashes.append(hash_block(parent, seq.tokens(i * size, (i + 1) * size), keys))
        return hashes

    def event_keys(self, request: Request, first: int, stop: int) -> list[tuple[Any, ...] | None] | None:
        """Extra keys of blocks `[first, stop)` as events carry them (untagged), one entry per block."""
        if not _has_keys(request):
            return [None] * (stop - first)
        return event_extra_keys([self._hash_keys(request, i) for i in range(first, stop)])

    def _hash_keys(self, request: Request, index: int) -> tuple[Any, ...] | None:
        lora = request.lora
        return hash_extra_keys(
            lora_name=lora.name if lora else None,
            lora_path=lora.path if lora else None,
            lora_id=lora.id if lora else None,
            mm=self._mm(request, index),
            cache_salt=request.cache_salt if index == 0 else None,
            vllm_version=self._version,
        )

    def _mm(self, request: Request, index: int) -> list[tuple[str, int]]:
        start = index * self.block_size
        stop = start + self.block_size
        return [
            (f.identifier, f.offset - start)
            for f in request.mm_features
            if f.offset < stop and f.offset + f.length > start
        ]


def _has_keys(request: Request) -> bool:
    return bool(request.lora or request.cache_salt or request.mm_features)
