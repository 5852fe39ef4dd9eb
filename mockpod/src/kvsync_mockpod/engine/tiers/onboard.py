"""Onboarding: blocks found in host memory or on disk are copied to the device for a later prompt.

It takes two steps, because the caller has to reserve device slots in between: a prefix is found and pinned first, and
its transfer is started afterwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kvsync_mockpod.engine.tiers.blocks import StoredBlock
from kvsync_mockpod.engine.tiers.links import TierLinks
from kvsync_mockpod.engine.tiers.store import TierStore


@dataclass(slots=True)
class PreparedOnboard:
    """A pinned prefix in the lower tiers. It occupies no bandwidth yet and has to be started or released."""

    host: list[StoredBlock]
    disk: list[StoredBlock]
    """The blocks that follow those of `host` and are on disk only."""

    @property
    def block_count(self) -> int:
        """Blocks in the prefix."""
        return len(self.host) + len(self.disk)


@dataclass(slots=True)
class OnboardHandle:
    """A transfer to the device. Its blocks stay pinned in the lower tiers until the handle is released."""

    prepared: PreparedOnboard
    outstanding: int = 0
    released: bool = False
    done_s: float | None = None

    @property
    def block_count(self) -> int:
        """Blocks in the transfer."""
        return self.prepared.block_count

    @property
    def is_complete(self) -> bool:
        """Whether every block has reached the device."""
        return self.outstanding == 0


class Onboarder:
    """Finds prefixes in the lower tiers and copies them to the device."""

    def __init__(self, host: TierStore, disk: TierStore, links: TierLinks, block_bytes: int) -> None:
        self.host_hits = 0
        """Blocks onboarded from host memory."""
        self.disk_hits = 0
        """Blocks onboarded from disk."""
        self._host = host
        self._disk = disk
        self._links = links
        self._bytes = block_bytes

    def prepare(self, hashes: Sequence[bytes]) -> PreparedOnboard | None:
        """Find and pin the longest prefix of `hashes` in host memory and what follows it on disk; None if empty."""
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

    def start(self, prepared: PreparedOnboard, now: float) -> OnboardHandle:
        """Begin to copy a prepared prefix; the blocks on disk pass the disk link first, then the device's."""
        handle = OnboardHandle(prepared)
        links = self._links
        self.host_hits += len(prepared.host)
        self.disk_hits += len(prepared.disk)

        def landed(at: float) -> None:
            handle.outstanding -= 1
            if not handle.outstanding:
                handle.done_s = at

        def read(at: float) -> None:
            links.start(links.host_to_device, len(prepared.disk) * self._bytes, at, landed)

        if prepared.host:
            handle.outstanding += 1
            links.start(links.host_to_device, len(prepared.host) * self._bytes, now, landed)
        if prepared.disk:
            handle.outstanding += 1
            links.start(links.disk, len(prepared.disk) * self._bytes, now, read)
        return handle

    def release(self, onboard: PreparedOnboard | OnboardHandle) -> None:
        """Unpin a prefix, once; the transfer of an unfinished handle runs to its end."""
        if isinstance(onboard, OnboardHandle):
            if onboard.released:
                return
            onboard.released = True
            onboard = onboard.prepared
        for block in reversed(onboard.host):
            self._host.unpin(block)
        for block in reversed(onboard.disk):
            self._disk.unpin(block)
