"""The fault plan of a MockEngine, so that one file can describe a whole experiment.

The kinds have the names that the pods use in `/debug/faults`, where the plan can be changed later and more parameters
are available.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from kvsync_operator.models.common import Model, rules

_TIMED = ("delay", "stall", "rebind", "replay_slow", "slow_tokens")
_Number = Annotated[int, Field(ge=0, le=2_147_483_647)]


class FaultRule(Model):
    """One kind of fault, and the cases in which it is injected."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            ("!(has(self.at) && has(self.ratePerMille))", "faults: at and ratePerMille exclude each other"),
            (
                f"!has(self.milliseconds) || self.kind in {list(_TIMED)}",
                f"faults: milliseconds is only for {', '.join(_TIMED)}",
            ),
        )
    }

    kind: Literal[
        "drop_unnumbered",
        "drop",
        "duplicate",
        "reorder",
        "delay",
        "corrupt",
        "truncate",
        "oversize",
        "wrong_parent",
        "stall",
        "rebind",
        "restart",
        "replay_slow",
        "replay_silent",
        "replay_truncate",
        "replay_lie",
        "http_error",
        "slow_tokens",
    ]
    """Kind of the fault."""
    at: Annotated[list[_Number], Field(min_length=1, max_length=1024)] | None = None
    """Cases in which the fault is injected: numbers of batches, replay requests or HTTP requests, counted from 0."""
    rate_per_mille: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Number of cases per thousand in which the fault is injected, chosen by the seed; excludes `at`."""
    since: _Number = 0
    """First case in which the fault may be injected."""
    until: Annotated[int, Field(ge=1, le=2_147_483_647)] | None = None
    """First case in which the fault is no longer injected."""
    limit: Annotated[int, Field(ge=1, le=2_147_483_647)] | None = None
    """How often the fault is injected at most."""
    rank: Annotated[int, Field(ge=0, le=63)] | None = None
    """Inject the fault only in this data-parallel rank."""
    milliseconds: Annotated[int, Field(ge=1, le=3_600_000)] | None = None
    """Duration of the fault in milliseconds, for the kinds that take time."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.at is not None and self.rate_per_mille is not None:
            raise ValueError("at: excludes ratePerMille")
        if self.milliseconds is not None and self.kind not in _TIMED:
            raise ValueError(f"milliseconds: is only for {', '.join(_TIMED)}, not for {self.kind}")
        return self

    def to_rule(self) -> dict[str, Any]:
        """Return the rule in the form of the pod's fault plan."""
        rule = self.model_dump(exclude_none=True, exclude={"rate_per_mille", "milliseconds"})
        if self.rate_per_mille is not None:
            rule["rate"] = self.rate_per_mille / 1000
        if self.milliseconds is not None:
            rule["ms"] = self.milliseconds
        return rule
