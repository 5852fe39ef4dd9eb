"""The format of a fault plan: which faults a pod injects, where, and how often.

    {"seed": 7, "faults": [{"kind": "drop", "at": [3, 8]}, {"kind": "corrupt", "rate": 0.1, "limit": 5}]}

A rule fires either at given numbers (`at`, each number once) or at a `rate` drawn from the seed, within `[since,
until)` and at most `limit` times. The number is the sequence number of a batch, the ordinal of a replay request, or the
ordinal of an HTTP request among those that the rule concerns, counted from 0. `stall`, `rebind` and `restart` without
`at` and `rate` apply once, as soon as the plan is set.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kvsync_mockpod.errors import ConfigError
from kvsync_mockpod.suggestions import did_you_mean

_MS = Field(ge=1, le=3_600_000)


class _Rule(BaseModel):
    """When a fault applies."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=100_000)] = ()
    rate: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    since: Annotated[int, Field(ge=0)] = 0
    until: Annotated[int, Field(ge=1)] | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    rank: Annotated[int, Field(ge=0)] | None = None

    @property
    def at_once(self) -> bool:
        """Whether the rule applies once, when the plan is set."""
        return False

    @model_validator(mode="after")
    def _one_trigger(self) -> "_Rule":
        if self.at and self.rate is not None:
            raise ValueError("at and rate exclude each other")
        return self


class _Now(_Rule):
    """A fault of the publisher itself, which may also apply at once."""

    @property
    def at_once(self) -> bool:
        """Without `at` and `rate` the fault applies when the plan is set."""
        return not self.at and self.rate is None


class _Payload(_Rule):
    """A fault in the payload of a batch; with `in_replay` the replay buffer has the damaged payload too."""

    in_replay: bool = False


class DropUnnumbered(_Rule):
    """A batch is lost before it gets a number, so that subscribers cannot notice it."""

    kind: Literal["drop_unnumbered"]


class Drop(_Rule):
    """A numbered batch is not sent, which leaves a gap; without `in_replay` the replay buffer lacks it too."""

    kind: Literal["drop"]
    in_replay: bool = True


class Duplicate(_Rule):
    """A batch is sent `times` more times."""

    kind: Literal["duplicate"]
    times: Annotated[int, Field(ge=1, le=100)] = 1


class Reorder(_Rule):
    """A batch is sent after 1 to `window` later batches, or after `hold_ms` if fewer follow."""

    kind: Literal["reorder"]
    window: Annotated[int, Field(ge=1, le=1000)] = 4
    hold_ms: Annotated[int, _MS] = 1000


class Delay(_Rule):
    """A batch and all later ones are sent `ms` later, in the same order."""

    kind: Literal["delay"]
    ms: Annotated[int, _MS] = 100


class Corrupt(_Payload):
    """`count` bytes of the payload are changed."""

    kind: Literal["corrupt"]
    count: Annotated[int, Field(ge=1, le=65_536)] = 1


class Truncate(_Payload):
    """The payload is cut off after `size` bytes (by default half of it)."""

    kind: Literal["truncate"]
    size: Annotated[int, Field(ge=0)] | None = None


class Oversize(_Payload):
    """The payload is extended to `size` bytes by another element of the batch array; it stays valid msgpack."""

    kind: Literal["oversize"]
    size: Annotated[int, Field(ge=1, le=2**28)] = 2**24


class WrongParent(_Payload):
    """The parents in the stored events of a batch are hashes that do not exist."""

    kind: Literal["wrong_parent"]


class Stall(_Now):
    """The publisher sends nothing for `ms`; batches are numbered in the meantime and sent afterwards, in order."""

    kind: Literal["stall"]
    ms: Annotated[int, _MS] = 1000


class Rebind(_Now):
    """The PUB socket is closed and opened again after `ms`; batches in between are numbered and lost."""

    kind: Literal["rebind"]
    ms: Annotated[int, _MS] = 100


class Restart(_Now):
    """The publisher starts again with number 0, an empty buffer and new sockets; the cache is `kept` or `lost`.

    With `ahead`, the new publisher has overtaken the old one before anyone can connect: it has published so many
    batches that its next number is larger than the old one by `ahead`. Each of them says that the lost cache is empty.
    """

    kind: Literal["restart"]
    blocks: Literal["kept", "lost"] = "lost"
    ahead: Annotated[int, Field(ge=1, le=10_000)] | None = None

    @model_validator(mode="after")
    def _overtakes_with_an_empty_cache(self) -> "Restart":
        if self.ahead is not None and self.blocks == "kept":
            raise ValueError("ahead needs blocks: lost")
        return self


class ReplaySlow(_Rule):
    """A replay waits `ms` before each reply."""

    kind: Literal["replay_slow"]
    ms: Annotated[int, _MS] = 100


class ReplaySilent(_Rule):
    """A replay request is never answered."""

    kind: Literal["replay_silent"]


class ReplayTruncate(_Rule):
    """A replay ends after `replies` replies, with the end marker or (`marker` false) without it."""

    kind: Literal["replay_truncate"]
    replies: Annotated[int, Field(ge=0)] = 0
    marker: bool = False


class ReplayLie(_Rule):
    """A replay says what is not so: that there is no batch, that later batches came earlier, or what was in a batch.

    With `about: payload`, each reply carries its own number and the payload of the batch after it.
    """

    kind: Literal["replay_lie"]
    about: Literal["end", "order", "payload"] = "order"


class HttpFailure(_Rule):
    """A request to a path that starts with `path` is answered with an error."""

    kind: Literal["http_error"]
    status: Annotated[int, Field(ge=400, le=599)] = 500
    path: str = Field("/v1/", max_length=256)


class SlowTokens(_Rule):
    """The tokens of a request are sent one by one, each after an additional `ms`."""

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
    | ReplayLie
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
    "replay_lie": ReplayLie,
    "http_error": HttpFailure,
    "slow_tokens": SlowTokens,
}
REPLAY_KINDS = frozenset(("replay_slow", "replay_silent", "replay_truncate", "replay_lie"))
HTTP_KINDS = frozenset(("http_error", "slow_tokens"))
EVENT_KINDS = frozenset(_BY_KIND) - REPLAY_KINDS - HTTP_KINDS


class FaultPlan(BaseModel):
    """A seed and the rules."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    faults: Annotated[tuple[Fault, ...], Field(max_length=1000)] = ()


def parse_plan(value: object, where: str = "faults") -> FaultPlan:
    """Parse a plan from JSON or YAML values.

    Raises:
        ConfigError: one line that names the field and what is allowed.
    """
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
        return f"{path}: unknown field{did_you_mean(loc[-1], known)}"
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        given = first["input"].get("kind") if isinstance(first["input"], dict) else first["input"]
        return f"{path}.kind: {str(given)[:60]!r} refused; allowed: {', '.join(_BY_KIND)}"
    return f"{path}: {str(first['input'])[:80]!r} refused: {first['msg'].removeprefix('Value error, ')}"
