"""Connects sequences with the block table: prefix lookup, allocation, caching of full blocks, loads from lower tiers.

The rules are those of vLLM's `KVCacheManager` for one full-attention group, as observed on vLLM itself. A hit leaves at
least one token to compute, blocks are hashed when they are scheduled, and admission may require room for the whole
known sequence.
"""

from enum import Enum

from kvsync_mockpod.engine.config import EngineConfig
from kvsync_mockpod.engine.hashing import BlockIdentity
from kvsync_mockpod.engine.pool import BlockPool, Hit
from kvsync_mockpod.engine.recorder import Recorder
from kvsync_mockpod.engine.sequence import Sequence
from kvsync_mockpod.engine.tiers import OffloadEngine, PreparedOnboard


class Fit(Enum):
    """The answer to a request for blocks. Blocks are allocated only for YES."""

    YES = "yes"
    NO = "no"
    LATER = "later"
    """There will be room as soon as copies under way release their slots."""


class BlockManager:
    """Moves blocks between the pool and the tables of sequences, and reports which blocks became resident."""

    def __init__(
        self,
        config: EngineConfig,
        pool: BlockPool,
        identity: BlockIdentity,
        recorder: Recorder,
        offload: OffloadEngine | None = None,
    ) -> None:
        self.pool = pool
        self.identity = identity
        self.offload = offload
        self.now = 0.0
        self._recorder = recorder
        self._size = config.block_size
        self._caching = config.enable_prefix_caching
        self._max_len = config.max_model_len
        self._watermark = config.margin_blocks
        self._reports_hits = config.reports_hits
        self._reserve_full = config.reserves_full
        self._promised: dict[Sequence, int] = {}
        """Blocks that sequences waiting for a load will need beyond those being loaded."""
        if offload is not None:
            offload.on_release = self._slots_released

    def find_hit(self, seq: Sequence) -> Hit:
        """The longest cached prefix of prompt and output, leaving at least one token to compute."""
        if not self._caching or seq.request.skip_cache:
            return Hit()
        blocks = (seq.total - 1) // self._size
        hit = self.pool.lookup(self.identity.extend(seq, blocks), blocks)
        if hit.blocks and seq.request.report_full and self._reports_hits:
            self._report(seq, 0, hit.blocks, resident=True)
        return hit

    def admit(self, seq: Sequence, hit: Hit, new_tokens: int, *, others_running: bool) -> bool:
        """Hold the hit (unless the sequence already holds blocks) and allocate one chunk.

        Returns False if there is no room.
        """
        pool, size = self.pool, self._size
        margin = self._watermark if others_running else 0
        have = hit.blocks + len(seq.table)
        computed = seq.computed or hit.blocks * size
        if self._reserve_full and max(self._whole(seq) - have, 0) + hit.idle + margin > pool.free:
            return False
        end = min(computed + new_tokens, self._max_len)
        fresh = max(-(-end // size) - have, 0)
        if fresh + hit.idle + margin > pool.free:
            return False
        pool.hold(seq.table, hit)
        if self.offload is not None and not self._make_blanks(fresh):
            if not seq.computed:
                pool.release(seq.table)
            return False
        pool.allocate(seq.table, fresh)
        self.cache(seq, computed + new_tokens)
        self._promised.pop(seq, None)
        if self.offload is not None and self._caching:
            self.offload.count_uses(seq.hashes[: seq.total // self._size])
        return True

    def grow(self, seq: Sequence, new_tokens: int) -> Fit:
        """Allocate the blocks for a running sequence's next tokens."""
        end = seq.computed + new_tokens
        fresh = -(-min(end, self._max_len) // self._size) - len(seq.table)
        if fresh > 0:
            if fresh > self.pool.free:
                coming = self.offload.held_slots if self.offload is not None else 0
                return Fit.LATER if coming and fresh <= self.pool.free + coming else Fit.NO
            if self.offload is not None and not self._make_blanks(fresh):
                return Fit.LATER
            self.pool.allocate(seq.table, fresh)
        self.cache(seq, end)
        return Fit.YES

    def cache(self, seq: Sequence, tokens: int) -> None:
        """Hash the full blocks within the first `tokens` known tokens and announce the new ones."""
        if not self._caching:
            return
        full = min(tokens, seq.total) // self._size
        first = seq.table.hashed
        if full > first:
            hashes = self.identity.extend(seq, full)
            self.pool.store(seq.table, hashes[first:full])
            self._report(seq, first, full, resident=False)

    def store_next(self, seq: Sequence) -> None:
        """Hash and announce the first block without a hash, which has just been completed."""
        first = seq.table.hashed
        hashes = self.identity.extend(seq, first + 1)
        self.pool.store_one(seq.table, hashes[first])
        self._report(seq, first, first + 1, resident=False)

    def release(self, seq: Sequence) -> None:
        """Release all blocks that the sequence holds or has pinned in lower tiers."""
        self.pool.release(seq.table)
        if seq.loading is not None and self.offload is not None:
            self.offload.release(seq.loading)
            seq.loading = None
        self._promised.pop(seq, None)

    def retract(self, seq: Sequence, computed: int) -> None:
        """Withdraw the announced blocks beyond the first `computed` tokens, because they were never computed."""
        self.pool.unstore(seq.table, computed // self._size)

    def find_in_tiers(self, seq: Sequence, hit: Hit) -> PreparedOnboard | None:
        """The blocks that lower tiers hold directly after a hit, pinned there; None if they hold none."""
        if self.offload is None or not self._caching:
            return None
        blocks = (seq.total - 1) // self._size
        return self.offload.prepare_onboard_prefix(seq.hashes[hit.blocks : blocks])

    def start_load(self, seq: Sequence, hit: Hit, prepared: PreparedOnboard, *, others_running: bool) -> bool:
        """Reserve device slots and start the transfer; returns False if there is no room.

        There must be room for this sequence as a whole together with all other sequences that wait for loads, so that
        none of them can block another permanently.
        """
        assert self.offload is not None
        pool, count = self.pool, prepared.block_count
        margin = self._watermark if others_running else 0
        need = max(self._whole(seq) - hit.blocks, count)
        if need + hit.idle + margin + sum(self._promised.values()) > pool.free:
            self.offload.release(prepared)
            return False
        pool.hold(seq.table, hit)
        if not self._make_blanks(count):
            pool.release(seq.table)
            self.offload.release(prepared)
            return False
        pool.allocate(seq.table, count)
        self._promised[seq] = need - count
        seq.loading = self.offload.start_onboard_prefix(prepared, self.now)
        return True

    def finish_load(self, seq: Sequence) -> None:
        """Make the loaded blocks resident and unpin them in the lower tiers."""
        assert self.offload is not None
        assert seq.loading is not None
        first = seq.table.hashed
        stop = first + seq.loading.block_count
        self.pool.store(seq.table, seq.hashes[first:stop])
        self._report(seq, first, stop, resident=False)
        self.offload.release(seq.loading)
        seq.loading = None
        seq.computed = stop * self._size

    def _whole(self, seq: Sequence) -> int:
        """Number of blocks of the whole known sequence."""
        return -(-min(seq.total, self._max_len) // self._size)

    def _make_blanks(self, count: int) -> bool:
        """Ensure that `count` free blocks have no hash, offering evicted blocks to host memory.

        False if slots are still held.
        """
        pool, offload = self.pool, self.offload
        assert offload is not None
        short = count - pool.blanks - offload.held_slots
        if short > 0:
            self._recorder.evicted = []
            pool.evict(short)
            evicted, self._recorder.evicted = self._recorder.evicted, None
            pool.blanks -= short
            if not offload.offer(evicted, self.now, slots=short):
                pool.blanks += short
        return count <= pool.blanks

    def _slots_released(self, slots: int) -> None:
        self.pool.blanks += slots

    def _report(self, seq: Sequence, first: int, stop: int, *, resident: bool) -> None:
        if self._recorder.counts_only:
            self._recorder.stored_blocks += 0 if resident else stop - first
        else:
            self._announce(seq, first, stop, resident=resident)

    def _announce(self, seq: Sequence, first: int, stop: int, *, resident: bool) -> None:
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
