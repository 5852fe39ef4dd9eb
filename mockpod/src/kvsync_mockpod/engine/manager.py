"""Sequences against the block table: prefix lookup, allocation, caching of full blocks, release.

Rules are vLLM's `KVCacheManager` for one full-attention group, found with the oracle: a hit leaves at least one token
to compute; blocks are hashed when they are scheduled; admission may ask for room for the whole known sequence.
"""

from .config import EngineConfig
from .hashing import BlockIdentity
from .pool import BlockPool, Hit
from .recorder import Recorder
from .sequence import Sequence

__all__ = ["BlockManager"]


class BlockManager:
    """Moves blocks between the pool and sequences' tables and reports what became resident."""

    def __init__(self, config: EngineConfig, pool: BlockPool, identity: BlockIdentity, recorder: Recorder) -> None:
        self.pool = pool
        self.identity = identity
        self._recorder = recorder
        self._size = config.block_size
        self._caching = config.enable_prefix_caching
        self._max_len = config.max_model_len
        self._watermark = int(config.watermark * config.num_gpu_blocks)
        self._reserve_full = config.scheduler_reserve_full_isl

    def find_hit(self, seq: Sequence) -> Hit:
        """The longest cached prefix of prompt and output, at most all tokens but one."""
        if not self._caching:
            return Hit()
        blocks = (seq.total - 1) // self._size
        hit = self.pool.lookup(self.identity.extend(seq, blocks), blocks)
        if hit.blocks and seq.request.report_full:
            self._report(seq, 0, hit.blocks, resident=True)
        return hit

    def admit(self, seq: Sequence, hit: Hit, new_tokens: int, *, others_running: bool) -> bool:
        """Hold the hit and allocate one chunk after it; False, changing nothing, if there is no room."""
        size = self._size
        margin = self._watermark if others_running else 0
        free = self.pool.free
        hit_tokens = hit.blocks * size
        if self._reserve_full:
            whole = -(-min(seq.total, self._max_len) // size)
            if max(whole - hit.blocks, 0) + hit.idle + margin > free:
                return False
        end = min(hit_tokens + new_tokens, self._max_len)
        fresh = max(-(-end // size) - hit.blocks, 0)
        if fresh + hit.idle + margin > free:
            return False
        self.pool.hold(seq.table, hit)
        self.pool.allocate(seq.table, fresh)
        self.cache(seq, hit_tokens + new_tokens)
        return True

    def grow(self, seq: Sequence, new_tokens: int) -> bool:
        """Slots for a running sequence's next tokens; False, changing nothing, if there is no room."""
        end = min(seq.computed + new_tokens, self._max_len)
        fresh = -(-end // self._size) - len(seq.table)
        if fresh > 0:
            if fresh > self.pool.free:
                return False
            self.pool.allocate(seq.table, fresh)
        self.cache(seq, seq.computed + new_tokens)
        return True

    def cache(self, seq: Sequence, tokens: int) -> None:
        """Hash the sequence's full blocks within its first `tokens` known tokens and announce the new ones."""
        if not self._caching:
            return
        full = min(tokens, seq.total) // self._size
        first = seq.table.hashed
        if full > first:
            hashes = self.identity.extend(seq, full)
            self.pool.store(seq.table, hashes[first:full])
            self._report(seq, first, full, resident=False)

    def release(self, seq: Sequence) -> None:
        """The sequence holds nothing any more."""
        self.pool.release(seq.table)

    def retract(self, seq: Sequence, computed: int) -> None:
        """Take back the blocks announced beyond the first `computed` tokens: they were never computed."""
        self.pool.unstore(seq.table, computed // self._size)

    def _report(self, seq: Sequence, first: int, stop: int, *, resident: bool) -> None:
        request, size = seq.request, self._size
        self._recorder.stored(
            seq.hashes[first:stop],
            seq.hashes[first - 1] if first else None,
            lambda: seq.tokens(first * size, stop * size),
            lambda: self.identity.event_keys(request, first, stop),
            request.lora,
            request.session_id,
            resident=resident,
        )
