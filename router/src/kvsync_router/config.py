"""The settings of the router, validated once at start."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from kvsync_router.decisions.affinity import SessionSource
from kvsync_router.decisions.policies import DEFAULT_DECODE_WEIGHT, DEFAULT_PREFILL_WEIGHT
from kvsync_router.decisions.tiers import DEFAULT_TIER_WEIGHTS, parse_tier_weights
from kvsync_router.errors import RouterConfigError

PolicyName = Literal["kv", "least_request", "round_robin", "random"]


class RouterConfig(BaseModel):
    """Settings of one router."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: PolicyName = "kv"
    seed: int = 0
    """Seed of random choices and tie-breaks."""
    prefill_weight: float = Field(default=DEFAULT_PREFILL_WEIGHT, ge=0)
    """kv: cost of a queued prompt token, relative to a token that this request must compute."""
    decode_weight: float = Field(default=DEFAULT_DECODE_WEIGHT, ge=0)
    """kv: cost of a context token of a running request."""
    tier_weights: Mapping[str, Annotated[float, Field(ge=0, le=1)]] = DEFAULT_TIER_WEIGHTS
    """kv: what a matched token is worth by the tier that holds it, as a mapping or as `GPU=1,CPU=0.8`."""
    speculative_ttl_s: float = Field(default=0.0, ge=0, le=60)
    """kv: how long a prompt that was just routed counts as cached before an event says so; 0 for not at all."""
    session_affinity: str = "off"
    """Where requests name their session, whose requests all go to one endpoint: off, user, header:NAME, cookie:NAME."""
    attempts: int = Field(default=3, ge=1, le=16)
    """Endpoints that are tried, before the first byte, until the client gets 502 or 503."""
    connect_timeout_s: float = Field(default=2.0, gt=0)
    first_byte_timeout_s: float = Field(default=120.0, gt=0)
    """How long an endpoint may take until the first byte of its answer.

    An engine that hangs is found by its health long before. This is for one that answers `/health` and nothing else,
    so it may be as long as the slowest good answer: at 2,000 tokens per second, a prompt of 128,000 tokens takes 64 s,
    and it may have waited for another one of that length.
    """
    output_token_s: float = Field(default=0.1, ge=0)
    """Added to it for each token of an answer that is not streamed, since such an answer begins when it is complete."""
    idle_timeout_s: float = Field(default=120.0, gt=0)
    """How long an answer may pause after it has begun."""
    left_idle_timeout_s: float = Field(default=10.0, gt=0)
    """The same for an endpoint that has left the rotation or the directory."""
    health_s: float = Field(default=1.0, gt=0)
    """How often an endpoint in the rotation is asked for its health."""
    health_timeout_s: float = Field(default=3.0, gt=0)
    """How long it may take to answer."""
    health_failures: int = Field(default=2, ge=1)
    """Failed checks in a row after which it leaves the rotation. One is enough if the index calls it stale too."""
    engine_api_key: SecretStr | None = None
    index_token: SecretStr | None = None
    """Bearer token of the index's HTTP API."""
    index_ca_file: Path | None = None
    """Certificates that may sign that of an index with an `https` URL; None stands for those of the system."""
    """Key for the router's own questions to engines whose publisher has no key of its own."""
    match_timeout_s: float = Field(default=0.25, gt=0)
    """How long a decision waits for the index."""
    index_backoff_s: float = Field(default=1.0, ge=0)
    """How long the index is left alone after a match or a report has failed."""
    report_timeout_s: float = Field(default=2.0, gt=0)
    """How long the index may take to accept a report about a prediction; no client waits for it."""
    refresh_s: float = Field(default=1.0, gt=0)
    """How often the list of endpoints is read again."""
    probe_s: float = Field(default=0.25, gt=0)
    """How often an endpoint that is not in the rotation is asked for its health."""
    max_body_bytes: int = Field(default=64 * 1024 * 1024, gt=0)
    max_requests: int = Field(default=4096, gt=0)
    """Requests that may be in flight in the router; one more gets 429."""
    max_queued: int = Field(default=0, ge=0)
    """Of these, requests whose answer has not begun; 0 for no limit of their own."""
    max_endpoint_requests: int = Field(default=0, ge=0)
    """Requests in flight on one endpoint, 0 for no limit. If every endpoint is at a limit, a request gets 429."""
    max_endpoint_queued: int = Field(default=0, ge=0)
    """Of these, requests whose answer has not begun; 0 for no limit of their own."""
    retry_after_s: int = Field(default=1, ge=0)
    """What the header `retry-after` of such a 429 says."""
    access_log: bool = False
    """Write one line per request, with the decision."""

    @field_validator("tier_weights", mode="before")
    @classmethod
    def _read_weights(cls, given: object) -> object:
        return parse_tier_weights(given) if isinstance(given, str) else given

    @field_validator("session_affinity")
    @classmethod
    def _known_source(cls, given: str) -> str:
        SessionSource.parse(given)
        return given

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> Self:
        """Validate `values`. Raises RouterConfigError, which names the field, the value and what is allowed."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                near = difflib.get_close_matches(field, cls.model_fields, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise RouterConfigError(f"router: unknown field {field}{hint}") from None
            raise RouterConfigError(f"router: {field} = {first['input']!r}: {first['msg'].lower()}") from None
