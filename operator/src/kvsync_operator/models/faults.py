"""Faults an engine's pods start with: a fault plan as part of the resource, so that an experiment is one file.

The kinds and their words are those of the pods' `/debug/faults`, which can change the plan later and knows
some more parameters.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from kvsync_operator.models.common import Model, rules

__all__ = ["FaultRule"]

_TIMED = ("delay", "stall", "rebind", "replay_slow", "slow_tokens")
_Number = Annotated[int, Field(ge=0, le=2_147_483_647)]


class FaultRule(Model):
    """What goes wrong, where and how often."""

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
        "http_error",
        "slow_tokens",
    ]
    """What goes wrong."""
    at: Annotated[list[_Number], Field(min_length=1, max_length=1024)] | None = None
    """Numbers at which it does: of the batch, the replay request or the HTTP request, from 0."""
    rate_per_mille: Annotated[int, Field(ge=1, le=1000)] | None = None
    """In place of numbers: in how many of a thousand cases, drawn from the seed."""
    since: _Number = 0
    """First number it may happen at."""
    until: Annotated[int, Field(ge=1, le=2_147_483_647)] | None = None
    """Number from which on it does not happen any more."""
    limit: Annotated[int, Field(ge=1, le=2_147_483_647)] | None = None
    """At most this many times."""
    rank: Annotated[int, Field(ge=0, le=63)] | None = None
    """Only in this rank."""
    milliseconds: Annotated[int, Field(ge=1, le=3_600_000)] | None = None
    """How long, for the kinds that take time."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.at is not None and self.rate_per_mille is not None:
            raise ValueError("at: excludes ratePerMille")
        if self.milliseconds is not None and self.kind not in _TIMED:
            raise ValueError(f"milliseconds: is only for {', '.join(_TIMED)}, not for {self.kind}")
        return self

    def to_rule(self) -> dict[str, Any]:
        """The rule as the pod's fault plan has it."""
        rule = self.model_dump(exclude_none=True, exclude={"rate_per_mille", "milliseconds"})
        if self.rate_per_mille is not None:
            rule["rate"] = self.rate_per_mille / 1000
        if self.milliseconds is not None:
            rule["ms"] = self.milliseconds
        return rule
