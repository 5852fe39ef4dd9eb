"""The fault plan: what a pod can be told to do wrong, where, and how often.

    {"seed": 7, "faults": [{"kind": "drop", "at": [3, 8]}, {"kind": "corrupt", "rate": 0.1, "limit": 5}]}

A rule fires at chosen numbers (`at`: the batch's sequence number, the replay request's ordinal, or the HTTP
request's ordinal among those the rule concerns, from 0; each number once) or at a `rate` drawn from the seed,
within `[since, until)`, at most `limit` times. `stall`, `rebind` and `restart` without `at` and `rate` happen
once, as soon as the plan is set.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kvsync_mockpod.config.load import nearest
from kvsync_mockpod.errors import ConfigError

_MS = Field(ge=1, le=3_600_000)


class _Rule(BaseModel):
    """When a fault happens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=100_000)] = ()
    rate: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    since: Annotated[int, Field(ge=0)] = 0
    until: Annotated[int, Field(ge=1)] | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    rank: Annotated[int, Field(ge=0)] | None = None

    @property
    def at_once(self) -> bool:
        """Whether the rule happens once, when the plan is set."""
        return False

    @model_validator(mode="after")
    def _one_trigger(self) -> "_Rule":
        if self.at and self.rate is not None:
            raise ValueError("at and rate exclude each other")
        return self


class _Now(_Rule):
    """A fault of the publisher itself, which may also happen at once."""

    @property
    def at_once(self) -> bool:
        """Without a trigger it happens when the plan is set."""
        return not self.at and self.rate is None


class _Payload(_Rule):
    """A fault in the bytes of a batch; `in_replay`: the buffer has the bad bytes too."""

    in_replay: bool = False


class DropUnnumbered(_Rule):
    """A batch vanishes before it has a number: nothing on the wire shows it."""

    kind: Literal["drop_unnumbered"]


class Drop(_Rule):
    """A batch vanishes after it was numbered: a gap; `in_replay` false: it is not in the buffer either."""

    kind: Literal["drop"]
    in_replay: bool = True


class Duplicate(_Rule):
    """A batch is sent again, `times` times."""

    kind: Literal["duplicate"]
    times: Annotated[int, Field(ge=1, le=100)] = 1


class Reorder(_Rule):
    """A batch is sent after one to `window` later ones (or after `hold_ms`, when none come)."""

    kind: Literal["reorder"]
    window: Annotated[int, Field(ge=1, le=1000)] = 4
    hold_ms: Annotated[int, _MS] = 1000


class Delay(_Rule):
    """A batch and all behind it leave `ms` later; the order stays."""

    kind: Literal["delay"]
    ms: Annotated[int, _MS] = 100


class Corrupt(_Payload):
    """`count` bytes of the payload are changed."""

    kind: Literal["corrupt"]
    count: Annotated[int, Field(ge=1, le=65_536)] = 1


class Truncate(_Payload):
    """The payload ends after `size` bytes (default: half of it)."""

    kind: Literal["truncate"]
    size: Annotated[int, Field(ge=0)] | None = None


class Oversize(_Payload):
    """The payload grows to `size` bytes by an element more in the batch array (still msgpack)."""

    kind: Literal["oversize"]
    size: Annotated[int, Field(ge=1, le=2**28)] = 2**24


class WrongParent(_Payload):
    """The parents in the batch's stored events are hashes of nothing."""

    kind: Literal["wrong_parent"]


class Stall(_Now):
    """The publisher sends nothing for `ms`; batches are numbered and leave afterwards, in order."""

    kind: Literal["stall"]
    ms: Annotated[int, _MS] = 1000


class Rebind(_Now):
    """The PUB socket is closed and comes back after `ms`; batches in between are numbered and lost."""

    kind: Literal["rebind"]
    ms: Annotated[int, _MS] = 100


class Restart(_Now):
    """The publisher starts again: number 0, empty buffer, sockets reopened; the cache is `kept` or `lost`."""

    kind: Literal["restart"]
    blocks: Literal["kept", "lost"] = "lost"


class ReplaySlow(_Rule):
    """A replay waits `ms` before each reply."""

    kind: Literal["replay_slow"]
    ms: Annotated[int, _MS] = 100


class ReplaySilent(_Rule):
    """A replay request is never answered."""

    kind: Literal["replay_silent"]


class ReplayTruncate(_Rule):
    """A replay ends after `replies` replies, with the end marker or (`marker` false) without."""

    kind: Literal["replay_truncate"]
    replies: Annotated[int, Field(ge=0)] = 0
    marker: bool = False


class HttpFailure(_Rule):
    """A request to a path that starts with `path` is answered with an error."""

    kind: Literal["http_error"]
    status: Annotated[int, Field(ge=400, le=599)] = 500
    path: str = Field("/v1/", max_length=256)


class SlowTokens(_Rule):
    """A request's tokens come `ms` apart (more than they would)."""

    kind: Literal["slow_tokens"]
    ms: Annotated[int, _MS] = 100


Fault = Annotated[
    DropUnnumbered
    | Drop
    | Duplicate
    | Reorder
    | Delay
    | Corrupt
    | Truncate
    | Oversize
    | WrongParent
    | Stall
    | Rebind
    | Restart
    | ReplaySlow
    | ReplaySilent
    | ReplayTruncate
    | HttpFailure
    | SlowTokens,
    Field(discriminator="kind"),
]
_BY_KIND: dict[str, type[_Rule]] = {
    "drop_unnumbered": DropUnnumbered,
    "drop": Drop,
    "duplicate": Duplicate,
    "reorder": Reorder,
    "delay": Delay,
    "corrupt": Corrupt,
    "truncate": Truncate,
    "oversize": Oversize,
    "wrong_parent": WrongParent,
    "stall": Stall,
    "rebind": Rebind,
    "restart": Restart,
    "replay_slow": ReplaySlow,
    "replay_silent": ReplaySilent,
    "replay_truncate": ReplayTruncate,
    "http_error": HttpFailure,
    "slow_tokens": SlowTokens,
}
REPLAY_KINDS = frozenset(("replay_slow", "replay_silent", "replay_truncate"))
HTTP_KINDS = frozenset(("http_error", "slow_tokens"))
EVENT_KINDS = frozenset(_BY_KIND) - REPLAY_KINDS - HTTP_KINDS


class FaultPlan(BaseModel):
    """A seed and the rules."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    faults: Annotated[tuple[Fault, ...], Field(max_length=1000)] = ()


def parse_plan(value: object, where: str = "faults") -> FaultPlan:
    """A plan from JSON or YAML values. Raises `ConfigError`: one line with the field and what is allowed."""
    try:
        return FaultPlan.model_validate(value)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_one_line(error)}") from None


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    loc = [str(part) for part in first["loc"]]
    kinds = [part for part in loc if part in _BY_KIND]
    path = ".".join(part for part in loc if part not in _BY_KIND) or "plan"
    if first["type"] == "extra_forbidden":
        known = _BY_KIND[kinds[0]].model_fields if kinds else FaultPlan.model_fields
        return f"{path}: unknown field{nearest(loc[-1], known)}"
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        given = first["input"].get("kind") if isinstance(first["input"], dict) else first["input"]
        return f"{path}.kind: {str(given)[:60]!r} refused; allowed: {', '.join(_BY_KIND)}"
    return f"{path}: {str(first['input'])[:80]!r} refused: {first['msg'].removeprefix('Value error, ')}"
