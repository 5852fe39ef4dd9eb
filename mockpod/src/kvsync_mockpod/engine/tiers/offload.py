"""The offload engine: evicted device blocks go to host memory, from there to disk, and come back for later prompts.

Synchronous and deterministic: nothing moves but in `tick(now)`, `offer` and `start_onboard_prefix`. A burst of evicted
blocks keeps its device slots until every block of it that was accepted has arrived or failed; a burst of which nothing
is accepted keeps nothing.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from kvsync_mockpod.engine.tiers.config import TierConfig
from kvsync_mockpod.engine.tiers.links import Link
from kvsync_mockpod.engine.tiers.report import TierReport
from kvsync_mockpod.engine.tiers.store import StoredBlock, TierStore

HOST, DISK = "CPU", "STORAGE"


@dataclass(frozen=True, slots=True)
class SourceBlock:
    """An evicted device block: its hash (which names its position too) and what is needed to publish it later."""

    hash: bytes
    parent: bytes | None = None
    token_ids: tuple[int, ...] = ()


class TierSink(Protocol):
    """Told of every block that arrives in or leaves a lower tier."""

    def tier_stored(self, medium: str, blocks: Sequence[StoredBlock]) -> None:
        """Blocks arrived, in chain order where they belong together."""

    def tier_removed(self, medium: str, block: StoredBlock) -> None:
        """A block is gone."""


@dataclass(slots=True)
class _Burst:
    """Blocks evicted together: the device slots they keep, and how many copies are still to come."""

    slots: int
    outstanding: int


@dataclass(slots=True)
class _Batch:
    """Blocks copied to the host as one transfer."""

    blocks: list[StoredBlock]
    burst: _Burst


@dataclass(slots=True)
class PreparedOnboard:
    """A pinned prefix in the lower tiers. No bandwidth is reserved yet; start it or release it."""

    host: list[StoredBlock]
    disk: list[StoredBlock]
    """What follows the host's part and is on disk only."""

    @property
    def block_count(self) -> int:
        """Blocks that will come to the device."""
        return len(self.host) + len(self.disk)


@dataclass(slots=True)
class OnboardHandle:
    """Blocks on their way to the device; pins them below until released."""

    prepared: PreparedOnboard
    outstanding: int = 0
    released: bool = False
    done_s: float | None = None

    @property
    def block_count(self) -> int:
        """Blocks that come with it."""
        return self.prepared.block_count

    @property
    def is_complete(self) -> bool:
        """Whether every block has arrived."""
        return self.outstanding == 0


@dataclass(slots=True)
class _Counts:
    host_hits: int = 0
    disk_hits: int = 0
    offloaded: int = 0
    demoted: int = 0
    duplicates: int = 0
    dropped: int = 0


class OffloadEngine:
    """Host and disk behind one device. Several engines may share a disk by sharing its link."""

    def __init__(self, config: TierConfig, sink: TierSink, *, disk_link: Link | None = None) -> None:
        infinite = float("inf")
        instant = config.instant
        self.config = config
        self.held_slots = 0
        """Device slots that copies still read."""
        self.on_release: Callable[[int], None] = lambda _slots: None
        """Called with the number of device slots that became usable again."""
        self._sink = sink
        self._bytes = config.block_bytes or 0
        self._host = TierStore(config.host_blocks)
        self._disk = TierStore(config.disk_blocks)
        self._down = Link(infinite if instant else config.device_to_host_bandwidth, "device_to_host")
        self._up = Link(infinite if instant else config.host_to_device_bandwidth, "host_to_device")
        if disk_link is None:
            disk_link = Link(infinite if instant else config.disk_bandwidth, "disk")
        self._disk_link = disk_link
        self._queue: deque[_Batch] = deque()
        self._active = 0
        self._leaving = 0
        """Host slots whose blocks are being copied to disk."""
        self._to_host: set[bytes] = set()
        self._to_disk: set[bytes] = set()
        self._counts = _Counts()

    # --- down

    def offer(self, blocks: Sequence[SourceBlock], now: float, slots: int | None = None) -> bool:
        """Evicted device blocks, in eviction order. True: their slots stay unusable until the copies end.

        `slots` is how many device slots were emptied, if not one a block (further copies of a hash are not offered).

        Blocks that are in host memory, or on their way there, are not copied again; if none remains the burst is
        dropped at once and False returned.
        """
        self.tick(now)
        wanted = []
        for block in blocks:
            if block.hash in self._host or block.hash in self._to_host:
                self._counts.duplicates += 1
            else:
                wanted.append(StoredBlock(block.hash, block.parent, block.token_ids))
                self._to_host.add(block.hash)
        if not wanted:
            return False
        burst = _Burst(len(blocks) if slots is None else slots, len(wanted))
        self.held_slots += burst.slots
        size = min(self.config.batch_blocks, self.config.host_blocks)
        self._queue.extend(_Batch(wanted[i : i + size], burst) for i in range(0, len(wanted), size))
        self._pump(now)
        self._settle(now)
        return True

    def _pump(self, now: float) -> None:
        """Start queued batches while a transfer slot and room in host memory are there."""
        while self._queue and self._active < self.config.concurrent_batches:
            batch = self._queue[0]
            if not self._make_room(len(batch.blocks), now):
                if self._leaving:
                    return  # host slots come free when the disk is done
                self._queue.popleft()
                self._fail(batch)
                continue
            self._queue.popleft()
            self._host.reserve(len(batch.blocks))
            self._active += 1
            self._down.start(len(batch.blocks) * self._bytes, now, lambda at, b=batch: self._arrived(b, at))  # type: ignore[misc]

    def _make_room(self, count: int, now: float) -> bool:
        """Evict from host memory until `count` slots are vacant; a block not on disk is copied there first."""
        while self._host.vacant < count:
            if self._host.vacant + self._leaving >= count:
                return False
            victim = self._host.evict()
            if victim is None:
                return False
            self._sink.tier_removed(HOST, victim)
            if not self._demote(victim, now):
                self._counts.dropped += victim.hash not in self._disk
        return True

    def _demote(self, block: StoredBlock, now: float) -> bool:
        """Copy a block to disk; its host slot stays used until that is done. False if the disk does not take it."""
        if block.hash in self._disk or block.hash in self._to_disk or not self.config.disk_blocks:
            return False
        while not self._disk.vacant:
            victim = self._disk.evict()
            if victim is None:
                return False
            self._counts.dropped += 1
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
            self._counts.demoted += 1
            self._sink.tier_stored(DISK, [block])
            self._pump(at)

        self._disk_link.start(self._bytes, now, done)
        return True

    def _arrived(self, batch: _Batch, at: float) -> None:
        self._active -= 1
        for block in batch.blocks:
            self._to_host.discard(block.hash)
            self._host.insert(block)
        self._counts.offloaded += len(batch.blocks)
        for chain in _chains(batch.blocks):
            self._sink.tier_stored(HOST, chain)
        self._end(batch)
        self._pump(at)

    def _fail(self, batch: _Batch) -> None:
        """There is no room and there will be none: the blocks are lost, their slots are not."""
        for block in batch.blocks:
            self._to_host.discard(block.hash)
        self._counts.dropped += len(batch.blocks)
        self._end(batch)

    def _end(self, batch: _Batch) -> None:
        burst = batch.burst
        burst.outstanding -= len(batch.blocks)
        if not burst.outstanding:
            self.held_slots -= burst.slots
            self.on_release(burst.slots)

    # --- up

    def prepare_onboard_prefix(self, hashes: Sequence[bytes]) -> PreparedOnboard | None:
        """Find and pin the longest prefix of `hashes` in host memory, and what follows it on disk; None if empty."""
        prepared = PreparedOnboard([], [])
        for h in hashes:
            block = None if prepared.disk else self._host.get(h)
            if block is not None:
                self._host.pin(block)
                prepared.host.append(block)
                continue
            block = self._disk.get(h)
            if block is None:
                break
            self._disk.pin(block)
            prepared.disk.append(block)
        return prepared if prepared.block_count else None

    def start_onboard_prefix(self, prepared: PreparedOnboard, now: float) -> OnboardHandle:
        """Move a prepared prefix to the device; the caller has reserved its device slots."""
        self.tick(now)
        handle = OnboardHandle(prepared)
        self._counts.host_hits += len(prepared.host)
        self._counts.disk_hits += len(prepared.disk)

        def landed(at: float) -> None:
            handle.outstanding -= 1
            if not handle.outstanding:
                handle.done_s = at

        def read(at: float) -> None:
            self._up.start(len(prepared.disk) * self._bytes, at, landed)

        if prepared.host:
            handle.outstanding += 1
            self._up.start(len(prepared.host) * self._bytes, now, landed)
        if prepared.disk:
            handle.outstanding += 1
            self._disk_link.start(len(prepared.disk) * self._bytes, now, read)
        self._settle(now)
        return handle

    def release(self, onboard: PreparedOnboard | OnboardHandle) -> None:
        """Unpin a prefix that has arrived, or that nobody wants any more (its transfer runs to its end)."""
        if isinstance(onboard, OnboardHandle):
            if onboard.released:
                return
            onboard.released = True
            onboard = onboard.prepared
        for block in reversed(onboard.host):
            self._host.unpin(block)
        for block in reversed(onboard.disk):
            self._disk.unpin(block)

    # --- time

    def tick(self, now: float) -> None:
        """Advance all links to `now` in time order, so that an end on one can start a transfer on another."""
        while True:
            deadline = self.earliest_pending_deadline()
            if deadline is None or deadline > now:
                break
            for link in (self._down, self._up, self._disk_link):
                if link.deadline() == deadline:
                    link.advance(deadline)
                    break
        for link in (self._down, self._up, self._disk_link):
            link.advance(now)

    def _settle(self, now: float) -> None:
        """With instant links what was just started has ended."""
        if self.config.instant:
            self.tick(now)

    def earliest_pending_deadline(self) -> float | None:
        """When the next transfer on any link ends; None when all are idle."""
        found = [d for d in (self._down.deadline(), self._up.deadline(), self._disk_link.deadline()) if d is not None]
        return min(found, default=None)

    # --- state

    def blocks(self) -> list[tuple[str, StoredBlock]]:
        """Resident blocks of both tiers with their medium."""
        return [(HOST, b) for b in self._host.blocks()] + [(DISK, b) for b in self._disk.blocks()]

    def clear(self) -> None:
        """Forget every resident block; copies under way still arrive."""
        self._host.clear()
        self._disk.clear()

    def report(self) -> TierReport:
        """Hits, bytes and busy times since start."""
        counts = self._counts
        return TierReport(
            host_blocks=len(self._host),
            disk_blocks=len(self._disk),
            host_hits=counts.host_hits,
            disk_hits=counts.disk_hits,
            offloaded=counts.offloaded,
            demoted=counts.demoted,
            duplicates=counts.duplicates,
            dropped=counts.dropped,
            device_to_host=self._down.report(),
            host_to_device=self._up.report(),
            disk=self._disk_link.report(),
        )


def _chains(blocks: list[StoredBlock]) -> list[list[StoredBlock]]:
    """Blocks in eviction order (leaf first) as chains, beginning first, so that one event can carry each."""
    chains: list[list[StoredBlock]] = []
    for block in reversed(blocks):
        if chains and chains[-1][-1].hash == block.parent:
            chains[-1].append(block)
        else:
            chains.append([block])
    return chains
