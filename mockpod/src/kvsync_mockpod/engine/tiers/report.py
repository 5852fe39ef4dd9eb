"""Frozen reports of what the tiers have done since start."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LinkReport:
    """One link: completed transfers, their bytes, and the time during which any transfer was under way."""

    transfers: int = 0
    bytes: int = 0
    busy_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TierReport:
    """The lower tiers of one engine. If several engines share the disk link, its report covers all of them."""

    host_blocks: int = 0
    disk_blocks: int = 0
    host_hits: int = 0
    """Blocks onboarded from host memory."""
    disk_hits: int = 0
    offloaded: int = 0
    """Blocks that arrived in host memory."""
    demoted: int = 0
    """Blocks that arrived on disk."""
    duplicates: int = 0
    """Offered blocks that were in host memory or on their way there; they are refused unless duplicates are allowed."""
    dropped: int = 0
    """Blocks that left a tier without having been copied to a lower one, for lack of room or because they were used too
    rarely.
    """
    device_to_host: LinkReport = LinkReport()
    host_to_device: LinkReport = LinkReport()
    disk: LinkReport = LinkReport()
