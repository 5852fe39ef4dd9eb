"""Sizes and bandwidths of the lower tiers, validated once."""

from typing import Literal

from pydantic import Field, model_validator

from kvsync_mockpod.engine.config_model import ConfigModel
from kvsync_mockpod.engine.tiers.frequency import FrequencyTracker, TrackerSize
from kvsync_mockpod.engine.tiers.links import Link
from kvsync_mockpod.engine.tiers.store import Eviction


class TierConfig(ConfigModel):
    """A host tier, and a disk tier if `disk_blocks` is not 0. Bandwidths are in bytes per second."""

    subject = "tier parameter"

    host_blocks: int = Field(default=100_000, ge=1)
    """Capacity of the host tier."""
    disk_blocks: int = Field(default=0, ge=0)
    """Capacity of the disk tier; 0 for no disk tier."""
    block_bytes: int | None = Field(default=None, ge=1)
    """Bytes per block; required unless `instant` is set."""
    device_to_host_bandwidth: float = 14e9
    host_to_device_bandwidth: float = 14e9
    disk_bandwidth: float = 7e9
    batch_blocks: int = Field(default=32, ge=1)
    """Maximum number of blocks copied as one transfer."""
    concurrent_batches: int = Field(default=4, ge=1)
    """Maximum number of offload transfers under way; later batches start when one of them ends."""
    instant: bool = False
    """Transfers take no time; bandwidths and block size are ignored."""
    events: Literal["full", "hash_only"] = "full"
    """`full`: stored events of lower tiers carry parent and token ids.

    `hash_only`: they do not, as with vLLM's offload connector.
    """

    eviction: Eviction = "lru"
    """`lru`: the least recently used block leaves a tier. `lineage`: the least recently used one without a child in it.
    """
    duplicates: Literal["refuse", "allow"] = "refuse"
    """Whether host memory takes a further copy of a block that it has, or that is on its way there."""
    frequency: Literal["small", "medium", "large"] | None = None
    """Size of the sketch that counts how often blocks are used; None: uses are not counted."""
    offload_min_uses: int = Field(default=0, ge=0, le=255)
    """Blocks used less often are not copied to host memory (the `store_threshold` of vLLM's offload connector)."""

    @model_validator(mode="after")
    def _counts(self) -> "TierConfig":
        if self.offload_min_uses and self.frequency is None:
            raise ValueError(f"offload_min_uses {self.offload_min_uses}: uses are counted only with a frequency sketch")
        return self

    @model_validator(mode="after")
    def _moves(self) -> "TierConfig":
        if self.instant:
            return self
        if self.block_bytes is None:
            raise ValueError("block_bytes is missing: without it transfers have no duration (or ask for instant)")
        for name in ("device_to_host_bandwidth", "host_to_device_bandwidth", "disk_bandwidth"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} {getattr(self, name)}: must be positive and finite (or ask for instant)")
        return self

    def effective(self, bandwidth: float) -> float:
        """The bandwidth with which a link is made: an infinite one if transfers take no time."""
        return float("inf") if self.instant else bandwidth

    def make_disk_link(self) -> Link:
        """The disk's link, of which all workers that share the disk need the same one."""
        return Link(self.effective(self.disk_bandwidth), "disk")

    def make_tracker(self) -> FrequencyTracker | None:
        """The sketch that counts uses, if uses are counted."""
        return None if self.frequency is None else FrequencyTracker(TrackerSize[self.frequency.upper()])
