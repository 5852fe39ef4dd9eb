"""What the router can be told, validated once at start."""

import difflib
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kvsync_indexer.router.errors import RouterConfigError
from kvsync_indexer.router.policies import DEFAULT_DECODE_WEIGHT, DEFAULT_PREFILL_WEIGHT

PolicyName = Literal["kv", "least_request", "round_robin", "random"]


class RouterConfig(BaseModel):
    """Settings of one router."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: PolicyName = "kv"
    seed: int = 0
    """Seed of every random tie-break."""
    prefill_weight: float = Field(default=DEFAULT_PREFILL_WEIGHT, ge=0)
    """kv: what a queued prompt token costs, against 1 for a token this request must compute."""
    decode_weight: float = Field(default=DEFAULT_DECODE_WEIGHT, ge=0)
    """kv: what a context token of a running request costs."""
    attempts: int = Field(default=3, ge=1, le=16)
    """Endpoints tried before the client gets 502 or 503; only before the first byte."""
    connect_timeout_s: float = Field(default=2.0, gt=0)
    first_byte_timeout_s: float = Field(default=600.0, gt=0)
    """How long an endpoint may take to send its status line."""
    match_timeout_s: float = Field(default=0.25, gt=0)
    """How long a decision waits for the index."""
    index_backoff_s: float = Field(default=1.0, ge=0)
    """After a failed match, or a report that failed, the index is left alone for this long."""
    report_timeout_s: float = Field(default=2.0, gt=0)
    """How long the index may take to be told how a prediction did; no client waits for it."""
    refresh_s: float = Field(default=1.0, gt=0)
    """How often endpoints are read again."""
    probe_s: float = Field(default=0.25, gt=0)
    """How often an endpoint that is out of the rotation is asked for its health."""
    max_body_bytes: int = Field(default=64 * 1024 * 1024, gt=0)
    max_requests: int = Field(default=4096, gt=0)
    """Requests in flight in the router; one more gets 429."""

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> Self:
        """Validate `values`; RouterConfigError is one line that names the field, the value and what is allowed."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                near = difflib.get_close_matches(field, cls.model_fields, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                msg = f"router: unknown field {field}{hint}"
            else:
                msg = f"router: {field} = {first['input']!r}: {first['msg'].lower()}"
            raise RouterConfigError(msg) from None
