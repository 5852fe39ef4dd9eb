"""Sizes and bandwidths of the lower tiers, validated once."""

from typing import Literal

from pydantic import Field, model_validator

from kvsync_mockpod.engine.config_model import ConfigModel


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
