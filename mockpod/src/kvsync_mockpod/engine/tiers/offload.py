"""Offloading: evicted device blocks are copied to host memory, and blocks that host memory evicts are copied to disk.

Blocks evicted together form a burst. Its device slots stay unusable until every accepted block of the burst has been
copied or has failed. A burst of which no block is accepted keeps no slot.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kvsync_mockpod.engine.tiers.blocks import DISK, HOST, SourceBlock, StoredBlock, TierSink
from kvsync_mockpod.engine.tiers.config import TierConfig
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

    def __init__(self, config: TierConfig, sink: TierSink, host: TierStore, disk: TierStore, links: TierLinks) -> None:
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
        self._bytes = config.block_bytes or 0
        self._queue: deque[_Batch] = deque()
        self._active = 0
        """Transfers to host memory under way."""
        self._leaving = 0
        """Host slots whose blocks are being copied to disk."""
        self._to_host: set[bytes] = set()
        self._to_disk: set[bytes] = set()

    def offer(self, blocks: Sequence[SourceBlock], now: float, slots: int | None) -> bool:
        """Queue the evicted blocks that host memory does not have; returns False if there is none among them."""
        wanted = []
        for block in blocks:
            if block.hash in self._host or block.hash in self._to_host:
                self.counts.duplicates += 1
            else:
                wanted.append(StoredBlock(block.hash, block.parent, block.token_ids))
                self._to_host.add(block.hash)
        if not wanted:
            return False
        burst = _Burst(len(blocks) if slots is None else slots, len(wanted))
        self.held_slots += burst.slots
        size = min(self._config.batch_blocks, self._config.host_blocks)
        self._queue.extend(_Batch(wanted[i : i + size], burst) for i in range(0, len(wanted), size))
        self._start_batches(now)
        return True

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
            self._links.device_to_host.start(size, now, lambda at, b=batch: self._arrived(b, at))  # type: ignore[misc]

    def _make_room(self, count: int, now: float) -> bool:
        """Evict from host memory until `count` slots are vacant; a block that is not on disk is copied there first."""
        while self._host.vacant < count:
            if self._host.vacant + self._leaving >= count:
                return False
            victim = self._host.evict()
            if victim is None:
                return False
            self._sink.tier_removed(HOST, victim)
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

        self._links.disk.start(self._bytes, now, done)
        return True

    def _arrived(self, batch: _Batch, at: float) -> None:
        self._active -= 1
        for block in batch.blocks:
            self._to_host.discard(block.hash)
            self._host.insert(block)
        self.counts.offloaded += len(batch.blocks)
        for chain in _chains(batch.blocks):
            self._sink.tier_stored(HOST, chain)
        self._end(batch)
        self._start_batches(at)

    def _fail(self, batch: _Batch) -> None:
        """Drop a batch for which host memory can make no room; its device slots are released."""
        for block in batch.blocks:
            self._to_host.discard(block.hash)
        self.counts.dropped += len(batch.blocks)
        self._end(batch)

    def _end(self, batch: _Batch) -> None:
        burst = batch.burst
        burst.outstanding -= len(batch.blocks)
        if not burst.outstanding:
            self.held_slots -= burst.slots
            self.on_release(burst.slots)


def _chains(blocks: list[StoredBlock]) -> list[list[StoredBlock]]:
    """Group blocks given in eviction order (leaf first) into chains, first block first: one event carries one chain."""
    chains: list[list[StoredBlock]] = []
    for block in reversed(blocks):
        if chains and chains[-1][-1].hash == block.parent:
            chains[-1].append(block)
        else:
            chains.append([block])
    return chains
