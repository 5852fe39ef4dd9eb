"""Which faults happen: decides by rule, number and seed, counts them, and writes them into the truth log.

Pure: the publisher, the replay server and the HTTP side ask, and do what they are told. A rule draws from its
own generator per rank, so that the same plan over the same batches does the same, whatever else happens.
"""

import random
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kvsync_mockpod.faults.spec import EVENT_KINDS, HTTP_KINDS, REPLAY_KINDS, Fault, FaultPlan, HttpFailure

_LOG_ENTRIES = 100_000
_HTTP = -1
"""In the place of a rank: HTTP faults come before one is chosen."""


@dataclass(frozen=True, slots=True)
class FaultEntry:
    """One fault that was committed. `before` is the number of the block transition it came before."""

    before: int
    rank: int
    fault: str
    seq: int | None
    detail: dict[str, Any]


class _State:
    """One rule at one rank."""

    __slots__ = ("chance", "fired", "left", "rule", "seen")

    def __init__(self, rule: Fault, seed: int, index: int, rank: int) -> None:
        self.rule = rule
        self.left = set(rule.at)
        self.chance = random.Random(f"{seed} {index} {rank}")
        self.seen = 0
        self.fired = 0

    def fires(self, number: int) -> bool:
        """Whether the rule applies to this number; counts."""
        rule = self.rule
        self.seen += 1
        if rule.limit is not None and self.fired >= rule.limit:
            return False
        if rule.at:
            if number not in self.left:
                return False
            self.left.discard(number)
        else:
            if number < rule.since or (rule.until is not None and number >= rule.until) or rule.at_once:
                return False
            if rule.rate is not None and self.chance.random() >= rule.rate:
                return False
        self.fired += 1
        return True


def _concerns(rule: Fault, path: str, *, generates: bool) -> bool:
    return path.startswith(rule.path) if isinstance(rule, HttpFailure) else generates


class FaultPlane:
    """The plan in force. One for a pod; every question names the rank."""

    def __init__(self) -> None:
        self.plan = FaultPlan()
        self.counts: Counter[str] = Counter()
        self._states: dict[int, list[_State]] = {}
        self._log: dict[int, deque[FaultEntry]] = {}
        self.events_active = self.replay_active = self.http_active = False

    def set(self, plan: FaultPlan) -> None:
        """Put a plan in force (an empty one heals); numbers of `at` and draws start anew."""
        self.plan = plan
        self._states = {}
        kinds = {rule.kind for rule in plan.faults}
        self.events_active = bool(kinds & EVENT_KINDS)
        self.replay_active = bool(kinds & REPLAY_KINDS)
        self.http_active = bool(kinds & HTTP_KINDS)

    def _of(self, rank: int) -> list[_State]:
        states = self._states.get(rank)
        if states is None:
            states = self._states[rank] = [
                _State(rule, self.plan.seed, index, rank)
                for index, rule in enumerate(self.plan.faults)
                if rule.rank is None or rank in (rule.rank, _HTTP)
            ]
        return states

    def at_once(self, rank: int) -> list[Fault]:
        """The rules that happen as the plan is set."""
        found = [state for state in self._of(rank) if state.rule.at_once]
        for state in found:
            state.fired += 1
        return [state.rule for state in found]

    def on_batch(self, rank: int, seq: int) -> list[tuple[Fault, random.Random]]:
        """Faults of the batch that is about to get number `seq`, in plan order, each with its generator."""
        return self._ask(rank, seq, EVENT_KINDS)

    def on_replay(self, rank: int, number: int) -> list[tuple[Fault, random.Random]]:
        """Faults of the `number`-th replay request."""
        return self._ask(rank, number, REPLAY_KINDS)

    def on_request(self, path: str, *, generates: bool) -> list[tuple[Fault, random.Random]]:
        """Faults of the next HTTP request; a rule counts only the requests it could apply to."""
        concerned = [
            state
            for state in self._of(_HTTP)
            if state.rule.kind in HTTP_KINDS and _concerns(state.rule, path, generates=generates)
        ]
        return [(state.rule, state.chance) for state in concerned if state.fires(state.seen)]

    def _ask(self, rank: int, number: int, kinds: frozenset[str]) -> list[tuple[Fault, random.Random]]:
        return [
            (state.rule, state.chance) for state in self._of(rank) if state.rule.kind in kinds and state.fires(number)
        ]

    def record(self, rank: int, fault: str, before: int, seq: int | None = None, **detail: object) -> None:
        """Count a committed fault and write it down."""
        self.counts[fault] += 1
        log = self._log.setdefault(rank, deque(maxlen=_LOG_ENTRIES))
        log.append(FaultEntry(before, rank, fault, seq, dict(detail)))

    def log(self, rank: int) -> Iterable[FaultEntry]:
        """What was committed at a rank, in order."""
        return tuple(self._log.get(rank, ()))

    def shown(self) -> dict[str, Any]:
        """The plan with its counts, as `/debug/faults` shows it."""
        rows = []
        for index, rule in enumerate(self.plan.faults):
            states = [state for found in self._states.values() for state in found if state.rule is rule]
            rows.append(
                {
                    **rule.model_dump(mode="json", exclude_defaults=True),
                    "id": index,
                    "seen": sum(state.seen for state in states),
                    "fired": sum(state.fired for state in states),
                }
            )
        return {"seed": self.plan.seed, "faults": rows, "counts": dict(self.counts)}
