"""Offloading: evicted device blocks are copied to host memory, and blocks that host memory evicts are copied to disk.

Blocks evicted together form a burst. Its device slots stay unusable until every accepted block of the burst has been
copied or has failed. A burst of which no block is accepted keeps no slot.
"""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from kvsync_mockpod.engine.tiers.blocks import DISK, HOST, SourceBlock, StoredBlock, TierSink, chains
from kvsync_mockpod.engine.tiers.config import TierConfig
from kvsync_mockpod.engine.tiers.frequency import FrequencyTracker
from kvsync_mockpod.engine.tiers.links import TierLinks
from kvsync_mockpod.engine.tiers.store import TierStore


@dataclass(slots=True)
class _Burst:
    """Blocks that were evicted together."""

    slots: int
    """Device slots that stay unusable until the burst has ended."""
    outstanding: int
    """Blocks that have neither been copied nor failed."""


@dataclass(slots=True)
class _Batch:
    """Blocks of one burst that are copied to host memory as one transfer."""

    blocks: list[StoredBlock]
    burst: _Burst


@dataclass(slots=True)
class OffloadCounts:
    """Blocks counted since start; `TierReport` describes each figure."""

    offloaded: int = 0
    demoted: int = 0
    duplicates: int = 0
    dropped: int = 0


class Offloader:
    """Copies blocks from the device to host memory and from host memory to disk."""

    def __init__(
        self,
        config: TierConfig,
        sink: TierSink,
        host: TierStore,
        disk: TierStore,
        links: TierLinks,
        frequency: FrequencyTracker | None = None,
    ) -> None:
        self.held_slots = 0
        """Device slots that copies still read."""
        self.on_release: Callable[[int], None] = lambda _slots: None
        """Called with the number of device slots that became usable again."""
        self.counts = OffloadCounts()
        self._config = config
        self._sink = sink
        self._host = host
        self._disk = disk
        self._links = links
        self._frequency = frequency
        self._bytes = config.block_bytes or 0
        self._queue: deque[_Batch] = deque()
        self._active = 0
        """Transfers to host memory under way."""
        self._leaving = 0
        """Host slots whose blocks are being copied to disk."""
        self._to_host: Counter[bytes] = Counter()
        self._to_disk: set[bytes] = set()

    def offer(self, blocks: Sequence[SourceBlock], now: float, slots: int | None) -> bool:
        """Queue the evicted blocks that host memory wants; returns False if there is none among them."""
        wanted = []
        for block in blocks:
            if self._wants(block.hash):
                wanted.append(StoredBlock(block.hash, block.parent, block.token_ids, block.context))
                self._to_host[block.hash] += 1
        if not wanted:
            return False
        burst = _Burst(len(blocks) if slots is None else slots, len(wanted))
        self.held_slots += burst.slots
        size = min(self._config.batch_blocks, self._config.host_blocks)
        self._queue.extend(_Batch(wanted[i : i + size], burst) for i in range(0, len(wanted), size))
        self._start_batches(now)
        return True

    def _wants(self, block_hash: bytes) -> bool:
        """Whether to copy a block, by the duplication policy and the number of its uses."""
        if block_hash in self._host or block_hash in self._to_host:
            self.counts.duplicates += 1
            if self._config.duplicates == "refuse":
                return False
        if self._frequency is not None and self._frequency.count(block_hash) < self._config.offload_min_uses:
            self.counts.dropped += 1
            return False
        return True

    def _no_longer_moves(self, block_hash: bytes) -> None:
        """A copy to host memory has ended."""
        self._to_host[block_hash] -= 1
        if not self._to_host[block_hash]:
            del self._to_host[block_hash]

    def lose(self) -> None:
        """Forget all copies, under way or queued, and release the device slots that they read."""
        self._queue.clear()
        self._active = self._leaving = 0
        self._to_host.clear()
        self._to_disk.clear()
        slots, self.held_slots = self.held_slots, 0
        self.on_release(slots)

    def _start_batches(self, now: float) -> None:
        """Start queued batches while fewer than `concurrent_batches` are under way and host memory has room."""
        while self._queue and self._active < self._config.concurrent_batches:
            batch = self._queue[0]
            if not self._make_room(len(batch.blocks), now):
                if self._leaving:
                    return  # host slots become vacant when the copies to disk complete
                self._queue.popleft()
                self._fail(batch)
                continue
            self._queue.popleft()
            self._host.reserve(len(batch.blocks))
            self._active += 1
            size = len(batch.blocks) * self._bytes
            self._links.start(self._links.device_to_host, size, now, partial(self._arrived, batch))

    def _make_room(self, count: int, now: float) -> bool:
        """Evict from host memory until `count` slots are vacant; a block that is not on disk is copied there first."""
        while self._host.vacant < count:
            if self._host.vacant + self._leaving >= count:
                return False
            victim = self._host.evict()
            if victim is None:
                return False
            self._sink.tier_removed(HOST, victim)
            if victim.hash in self._host:
                continue  # a copy of it stays
            if not self._demote(victim, now):
                self.counts.dropped += victim.hash not in self._disk
        return True

    def _demote(self, block: StoredBlock, now: float) -> bool:
        """Copy a block to disk; its host slot stays in use until then. Returns False if the disk does not accept it."""
        if block.hash in self._disk or block.hash in self._to_disk or not self._config.disk_blocks:
            return False
        while not self._disk.vacant:
            victim = self._disk.evict()
            if victim is None:
                return False
            self.counts.dropped += 1
            self._sink.tier_removed(DISK, victim)
        self._disk.reserve(1)
        self._host.reserve(1)
        self._leaving += 1
        self._to_disk.add(block.hash)

        def done(at: float) -> None:
            self._leaving -= 1
            self._host.unreserve(1)
            self._to_disk.discard(block.hash)
            self._disk.insert(block)
            self.counts.demoted += 1
            self._sink.tier_stored(DISK, [block])
            self._start_batches(at)

        self._links.start(self._links.disk, self._bytes, now, done)
        return True

    def _arrived(self, batch: _Batch, at: float) -> None:
        self._active -= 1
        for block in batch.blocks:
            self._no_longer_moves(block.hash)
            self._host.insert(block)
        self.counts.offloaded += len(batch.blocks)
        for chain in chains(batch.blocks):
            self._sink.tier_stored(HOST, chain)
        self._end(batch)
        self._start_batches(at)

    def _fail(self, batch: _Batch) -> None:
        """Drop a batch for which host memory can make no room; its device slots are released."""
        for block in batch.blocks:
            self._no_longer_moves(block.hash)
        self.counts.dropped += len(batch.blocks)
        self._end(batch)

    def _end(self, batch: _Batch) -> None:
        burst = batch.burst
        burst.outstanding -= len(batch.blocks)
        if not burst.outstanding:
            self.held_slots -= burst.slots
            self.on_release(burst.slots)
