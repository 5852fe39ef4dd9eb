"""The value of `--kv-events-config`, with vLLM's keys and defaults."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class KVEventsConfig(BaseModel):
    """Where and how block events are published (`KVEventsConfig` of vLLM 0.11.1 and newer)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enable_kv_cache_events: bool = Field(False, description="publish block events")
    publisher: Literal["zmq", "null"] | None = Field(None, description="unset: zmq when events are enabled")
    endpoint: str = Field("tcp://*:5557", min_length=1, description="PUB endpoint; the rank is added to a TCP port")
    replay_endpoint: str | None = Field(None, min_length=1, description="replay ROUTER endpoint, always bound")
    buffer_steps: int = Field(10_000, ge=1, le=10_000_000, description="batches kept for replay")
    hwm: int = Field(100_000, ge=0, le=2**31 - 1, description="PUB high-water mark; 0 is unlimited")
    max_queue_size: int = Field(100_000, ge=1, le=2**31 - 1, description="accepted and ignored; the mock has no queue")
    topic: str = Field("", max_length=255, description="first frame of every message")

    @property
    def publishes(self) -> bool:
        """Whether events are published over ZMQ."""
        return self.enable_kv_cache_events and self.publisher != "null"
