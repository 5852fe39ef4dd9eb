"""Sizes and bandwidths of the lower tiers, validated once."""

import difflib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kvsync_mockpod.engine.errors import EngineConfigError


class TierConfig(BaseModel):
    """A host tier, and a disk tier if `disk_blocks` is not 0. Bandwidths are in bytes per second."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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

    @classmethod
    def build(cls, **values: Any) -> "TierConfig":  # noqa: ANN401 - field values, validated here
        """Build a configuration from field values.

        Raises:
            EngineConfigError: one line that names the first invalid field.
        """
        for name in values:
            if name not in cls.model_fields:
                near = difflib.get_close_matches(name, list(cls.model_fields), n=1, cutoff=0.4)
                hint = f" (did you mean {near[0]}?)" if near else ""
                raise EngineConfigError(f"unknown tier parameter {name!r}{hint}")
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(p) for p in first["loc"])
            message = str(first["msg"]).removeprefix("Value error, ")
            raise EngineConfigError(f"{where} {first['input']!r}: {message}" if where else message) from None
