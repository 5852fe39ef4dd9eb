"""The faults in force: decides by rule, number and seed which fault fires, counts them and logs them.

It does no I/O. The publisher, the replay server and the HTTP application ask it and apply the faults that it returns.
Each rule has its own random generator per rank, so that the same plan applied to the same batches does the same
regardless of other traffic.
"""

import random
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kvsync_mockpod.faults.spec import EVENT_KINDS, HTTP_KINDS, REPLAY_KINDS, Fault, FaultPlan, HttpFailure

_LOG_ENTRIES = 100_000
_HTTP = -1
"""Stands for a rank in HTTP faults, which are decided before a rank is chosen."""


@dataclass(frozen=True, slots=True)
class FaultEntry:
    """One fault that was injected. `before` is the number of the block transition that follows it."""

    before: int
    rank: int
    fault: str
    seq: int | None
    detail: dict[str, Any]


class _State:
    """The state of one rule at one rank."""

    __slots__ = ("chance", "fired", "left", "rule", "seen")

    def __init__(self, rule: Fault, seed: int, index: int, rank: int) -> None:
        self.rule = rule
        self.left = set(rule.at)
        self.chance = random.Random(f"{seed} {index} {rank}")
        self.seen = 0
        self.fired = 0

    def fires(self, number: int) -> bool:
        """Decide whether the rule applies to this number, and count it."""
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


class ActiveFaults:
    """The plan in force, one per pod. Every method names the rank that it concerns."""

    def __init__(self) -> None:
        self.plan = FaultPlan()
        self.counts: Counter[str] = Counter()
        self._states: dict[int, list[_State]] = {}
        self._log: dict[int, deque[FaultEntry]] = {}
        self.events_active = self.replay_active = self.http_active = False

    def set(self, plan: FaultPlan) -> None:
        """Put a plan in force; an empty plan ends all faults. Counts for `at` and random draws start again."""
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
        """The rules that apply at once when the plan is set."""
        found = [state for state in self._of(rank) if state.rule.at_once]
        for state in found:
            state.fired += 1
        return [state.rule for state in found]

    def on_batch(self, rank: int, seq: int) -> list[tuple[Fault, random.Random]]:
        """The faults of the batch that will get number `seq`, in plan order, each with its random generator."""
        return self._ask(rank, seq, EVENT_KINDS)

    def on_replay(self, rank: int, number: int) -> list[tuple[Fault, random.Random]]:
        """The faults of the replay request with this number."""
        return self._ask(rank, number, REPLAY_KINDS)

    def on_request(self, path: str, *, generates: bool) -> list[tuple[Fault, random.Random]]:
        """The faults of the next HTTP request; a rule counts only the requests that it could apply to."""
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
        """Count an injected fault and log it."""
        self.counts[fault] += 1
        log = self._log.setdefault(rank, deque(maxlen=_LOG_ENTRIES))
        log.append(FaultEntry(before, rank, fault, seq, dict(detail)))

    def log(self, rank: int) -> Iterable[FaultEntry]:
        """The faults injected at a rank, in order."""
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
