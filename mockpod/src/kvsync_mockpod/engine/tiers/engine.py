"""The offload engine: host memory and disk behind one device.

It is synchronous and deterministic. Blocks move only within `tick(now)`, `offer` and `start_onboard_prefix`.
"""

from collections.abc import Callable, Sequence

from kvsync_mockpod.engine.tiers.blocks import DISK, HOST, SourceBlock, StoredBlock, TierSink, chains
from kvsync_mockpod.engine.tiers.config import TierConfig
from kvsync_mockpod.engine.tiers.links import Link, TierLinks
from kvsync_mockpod.engine.tiers.offload import Offloader
from kvsync_mockpod.engine.tiers.onboard import Onboarder, OnboardHandle, PreparedOnboard
from kvsync_mockpod.engine.tiers.report import TierReport
from kvsync_mockpod.engine.tiers.store import make_store


class OffloadEngine:
    """Host memory and disk of one worker. Several workers share a disk's bandwidth by sharing `disk_link`."""

    def __init__(self, config: TierConfig, sink: TierSink, *, disk_link: Link | None = None) -> None:
        self.config = config
        self._host = make_store(config.host_blocks, config.eviction)
        self._disk = make_store(config.disk_blocks, config.eviction)
        self._frequency = config.make_tracker()
        if disk_link is None:
            disk_link = config.make_disk_link()
        self._links = TierLinks(
            device_to_host=Link(config.effective(config.device_to_host_bandwidth), "device_to_host"),
            host_to_device=Link(config.effective(config.host_to_device_bandwidth), "host_to_device"),
            disk=disk_link,
        )
        self._sink = sink
        self._offloader = Offloader(config, sink, self._host, self._disk, self._links, self._frequency)
        self._onboarder = Onboarder(self._host, self._disk, self._links, config.block_bytes or 0)

    @property
    def held_slots(self) -> int:
        """Device slots that copies still read."""
        return self._offloader.held_slots

    @property
    def on_release(self) -> Callable[[int], None]:
        """Called with the number of device slots that became usable again."""
        return self._offloader.on_release

    @on_release.setter
    def on_release(self, callback: Callable[[int], None]) -> None:
        self._offloader.on_release = callback

    def offer(self, blocks: Sequence[SourceBlock], now: float, slots: int | None = None) -> bool:
        """Offer evicted device blocks, in eviction order, to host memory.

        Blocks that are in host memory or on their way there are not copied again. If none remains, the offer is
        dropped and False is returned. True means that the device slots stay unusable until the copies have ended.

        Args:
            blocks: One entry per hash; further copies of a hash are not offered.
            now: Engine time in seconds.
            slots: Number of device slots that were emptied; by default one per block.
        """
        self.tick(now)
        accepted = self._offloader.offer(blocks, now, slots)
        if accepted:
            self._complete_instant(now)
        return accepted

    def count_uses(self, hashes: Sequence[bytes]) -> None:
        """Count one use of each block, if uses are counted."""
        if self._frequency is not None:
            for block_hash in hashes:
                self._frequency.touch(block_hash)

    def prepare_onboard_prefix(self, hashes: Sequence[bytes]) -> PreparedOnboard | None:
        """Find and pin the longest prefix of `hashes` in host memory and what follows it on disk; None if empty."""
        return self._onboarder.prepare(hashes)

    def start_onboard_prefix(self, prepared: PreparedOnboard, now: float) -> OnboardHandle:
        """Begin to copy a prepared prefix to the device; the caller has reserved its device slots."""
        self.tick(now)
        handle = self._onboarder.start(prepared, now)
        self._complete_instant(now)
        return handle

    def release(self, onboard: PreparedOnboard | OnboardHandle) -> None:
        """Unpin a prefix that has arrived or is no longer needed; a transfer under way runs to its end."""
        self._onboarder.release(onboard)

    def tick(self, now: float) -> None:
        """Advance all links to `now`; every completion is reported before this returns."""
        self._links.tick(now)

    def earliest_pending_deadline(self) -> float | None:
        """Time at which the next transfer on any link ends; None when all links are idle."""
        return self._links.deadline()

    def _complete_instant(self, now: float) -> None:
        """Complete what was just started, if transfers take no time."""
        if self.config.instant:
            self.tick(now)

    def blocks(self) -> list[tuple[str, StoredBlock]]:
        """Resident blocks of both tiers, each with its medium."""
        return [(HOST, b) for b in self._host.blocks()] + [(DISK, b) for b in self._disk.blocks()]

    def announce(self) -> None:
        """Report every resident block to the sink again, in chains."""
        for medium, store in ((HOST, self._host), (DISK, self._disk)):
            for chain in chains(store.blocks()):
                self._sink.tier_stored(medium, chain)

    def clear(self) -> None:
        """Forget every resident block; copies under way still arrive."""
        self._host.clear()
        self._disk.clear()

    def lose(self, now: float) -> None:
        """Lose every block, whether resident or under way, as when the process ends; nothing is reported to the sink.

        Pinned prefixes must have been released. Transfers of other workers on a shared disk link go on.
        """
        self._links.cancel(now)
        self._host.lose()
        self._disk.lose()
        self._offloader.lose()

    def report(self) -> TierReport:
        """Hits, bytes moved and busy times since start."""
        counts = self._offloader.counts
        return TierReport(
            host_blocks=len(self._host),
            disk_blocks=len(self._disk),
            host_hits=self._onboarder.host_hits,
            disk_hits=self._onboarder.disk_hits,
            offloaded=counts.offloaded,
            demoted=counts.demoted,
            duplicates=counts.duplicates,
            dropped=counts.dropped,
            device_to_host=self._links.device_to_host.report(),
            host_to_device=self._links.host_to_device.report(),
            disk=self._links.disk.report(),
        )
