"""The router of a `PrefixIndex`, and the settings that its endpoint picker shares with it."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from kvsync_operator import names
from kvsync_operator.models.common import Duration, DurationBounds, Model, Port, rules, with_defaults

_Percent = Annotated[int, Field(ge=0, le=100)]
_Limit = Annotated[int, Field(ge=0, le=1_000_000)]


class RouterWeights(Model):
    """What counts how much for the policy `kv`, in percent of a prompt token that has to be computed."""

    prefill_percent: Annotated[int, Field(ge=0, le=10_000)] = 30
    """Cost of a prompt token that waits on the engine."""
    decode_percent: Annotated[int, Field(ge=0, le=10_000)] = 5
    """Cost of a context token of a running request."""
    gpu_percent: _Percent = 100
    """What a cached token on the device is worth."""
    cpu_percent: _Percent = 80
    """What a cached token in host memory is worth."""
    storage_percent: _Percent = 50
    """What a cached token on a disk or in a shared store is worth."""


class RouterLimits(Model):
    """What is admitted. A request beyond a limit gets status 429."""

    max_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 4096
    """Requests in flight in one router."""
    max_queued: _Limit = 0
    """Of these, requests whose answer has not begun; 0 sets no limit of their own."""
    max_endpoint_requests: _Limit = 0
    """Requests in flight on one engine; 0 sets no limit."""
    max_endpoint_queued: _Limit = 0
    """Of these, requests whose answer has not begun; 0 sets no limit of their own."""


class RouterTimeouts(Model):
    """How long the router waits for an engine."""

    first_byte: Annotated[Duration, DurationBounds("100ms", "24h")] = "120s"
    """Until an answer begins. An answer that is not streamed gets 100 ms more for each of its tokens."""
    idle: Annotated[Duration, DurationBounds("100ms", "24h")] = "120s"
    """Longest pause of an answer that has begun."""
    health: Annotated[Duration, DurationBounds("10ms", "1m")] = "3s"
    """Until an engine answers `/health`. One that fails twice gets no requests until it answers again."""


class Placing(Model):
    """How a request is placed, by a router or by an endpoint picker."""

    policy: Literal["kv", "least_request", "round_robin", "random"] = "kv"
    """How an engine is chosen for a request."""
    weights: RouterWeights = Field(default_factory=RouterWeights, json_schema_extra=with_defaults())
    """What counts how much for the policy `kv`."""
    speculative: Annotated[Duration, DurationBounds("0s", "1m")] = "0"
    """How long a prompt that was just placed counts as cached before the engine announces it; `0` for not at all."""
    session_affinity: Annotated[
        str, StringConstraints(pattern=r"^(off|user|(header|cookie):[A-Za-z0-9_-]{1,64})$", max_length=71)
    ] = "off"
    """Where requests name their session, whose requests all go to one engine: `off`, `user`, `header:NAME` or
    `cookie:NAME`."""
    limits: RouterLimits = Field(default_factory=RouterLimits, json_schema_extra=with_defaults())
    """What is admitted."""


class Router(Placing):
    """An OpenAI-compatible proxy that forwards each request to the engine that its policy chooses."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            (f"self.port != {names.INDEX_PORT}", f"router.port: {names.INDEX_PORT} is the index's own port"),
        )
    }

    port: Port = 8080
    """Port of the router and of its Service."""
    timeouts: RouterTimeouts = Field(default_factory=RouterTimeouts, json_schema_extra=with_defaults())
    """How long the router waits for an engine."""
    attempts: Annotated[int, Field(ge=1, le=16)] = 3
    """Engines that are tried until one begins to answer."""
    access_log: Literal["Disabled", "Enabled"] = "Disabled"
    """Whether the router writes one line per request."""

    @model_validator(mode="after")
    def _port_apart(self) -> Self:
        if self.port == names.INDEX_PORT:
            raise ValueError(f"port: {names.INDEX_PORT} is the index's own port")
        return self
