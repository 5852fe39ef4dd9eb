"""Planted bugs: checks that the comparison finds them and that the shrinker reduces them to their cause.

Each is one small, plausible mistake in the mock engine, present only while a schedule is played here. The search must
find it on random schedules and shrink it to a schedule of a few rows that differs with the bug and is equal without it,
with a bounded number of schedules sent to vLLM.
"""

from dataclasses import dataclass
from unittest.mock import patch

from kvsync_mockpod.engine.config import EngineConfig
from kvsync_mockpod.engine.manager import BlockManager
from kvsync_mockpod.engine.outputs import OutputStage
from kvsync_mockpod.engine.scheduler import Scheduler


@dataclass(frozen=True)
class Canary:
    """A planted bug: the replacement of one attribute of the engine."""

    name: str
    says: str
    owner: type
    attribute: str
    instead: object
    most_requests: int
    """The maximum number of requests in a shrunk schedule."""

    def plant(self):
        """A context manager within which the bug is present."""
        return patch.object(self.owner, self.attribute, self.instead)


def _first_running(scheduler):
    return scheduler.running[0], 0


def _leave_two(manager, seq, *, find=BlockManager.find_hit):
    seq.total -= 1
    try:
        return find(manager, seq)
    finally:
        seq.total += 1


def _length_first(stage, seq, token, *, stale, append=OutputStage._append):
    if len(seq.output) + 1 == seq.limit:
        seq.stops = frozenset()
    return append(stage, seq, token, stale=stale)


CANARIES = (
    Canary(
        *("victim", "out of blocks, the first running request is preempted instead of the last"),
        *(Scheduler, "_victim", _first_running, 3),
    ),
    Canary(
        *("reuse", "freed blocks without a hash wait in plain LRU order instead of being reused first"),
        *(EngineConfig, "blanks_first", property(lambda _config: False), 4),
    ),
    Canary(
        *("hit", "a hit leaves two tokens to compute instead of one"),
        *(BlockManager, "find_hit", _leave_two, 2),
    ),
    Canary(
        *("finish", "a stop token that is also the last allowed one ends with length"),
        *(OutputStage, "_append", _length_first, 1),
    ),
)


CHANCES = 3


class MissedError(Exception):
    """A planted bug was not found, or not reduced to its cause; the message says which bug and why."""


def hunt(canary, comparison, schedules, shrink):
    """Find the planted bug on `schedules` (pairs of name and rows), shrink it and return the result.

    Some schedules show a bug only by coincidences that cannot be removed one change at a time. Up to `CHANCES` of the
    schedules that show it are therefore shrunk until one is short enough. `comparison` has `first_difference(rows)` and
    `differs_at(rows)`. Raises MissedError.
    """
    chances, missed = CHANCES, f"{canary.name}: not found ({canary.says})"
    for tried, (name, rows) in enumerate(schedules, 1):
        with canary.plant():
            if comparison.first_difference(rows) is None:
                continue
            small = shrink(rows, comparison.differs_at)
            difference = comparison.first_difference(small)
        if difference is None:
            raise MissedError(f"{canary.name}: {name} shrank to a schedule that does not differ")
        left = comparison.first_difference(small)
        if left is not None:
            raise MissedError(f"{canary.name}: {name} shrank to a schedule that differs without the bug too: {left}")
        requests = sum("id" in row for row in small)
        if requests <= canary.most_requests:
            return Found(tried, name, rows, small, str(difference))
        missed = f"{canary.name}: {name} was shrunk to {requests} requests, not {canary.most_requests}"
        chances -= 1
        if not chances:
            break
    raise MissedError(missed)


@dataclass(frozen=True)
class Found:
    """A planted bug, reduced to its cause."""

    tried: int
    """Number of schedules played until the bug showed."""
    name: str
    rows: list
    small: list
    difference: str
