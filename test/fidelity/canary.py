"""Planted bugs: does the comparison see what it is for, and does the shrinker bring it down to its cause?

Each is one small, plausible mistake in the mock engine, made only while a schedule is played here. The search must find
it on random schedules, shrink it to a schedule of a few rows that differs with the bug and is equal without it, within
a bounded number of questions to vLLM.
"""

from dataclasses import dataclass
from unittest.mock import patch

from kvsync_mockpod.engine.config import EngineConfig
from kvsync_mockpod.engine.manager import BlockManager
from kvsync_mockpod.engine.outputs import OutputStage
from kvsync_mockpod.engine.scheduler import Scheduler


@dataclass(frozen=True)
class Canary:
    """A planted bug: what stands in the place of one attribute of the engine."""

    name: str
    says: str
    owner: type
    attribute: str
    instead: object
    most_requests: int
    """How many a shrunk schedule may keep."""

    def plant(self):
        """A context in which the bug is there."""
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
    """A planted bug was not found, or not brought down to its cause; the message says which and why."""


def hunt(canary, comparison, schedules, shrink):
    """Find the planted bug on `schedules` (pairs of name and rows) and shrink it; returns what was found.

    Some schedules show a bug only by coincidences that cannot be taken apart one change at a time, so up to
    `CHANCES` of those that show it are shrunk until one is short enough. `comparison` has `first_difference(rows)` and
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
            raise MissedError(f"{canary.name}: what {name} was shrunk to does not differ")
        left = comparison.first_difference(small)
        if left is not None:
            raise MissedError(f"{canary.name}: what {name} was shrunk to differs without the bug too: {left}")
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
    """A planted bug brought down to its cause."""

    tried: int
    """Schedules played until it showed."""
    name: str
    rows: list
    small: list
    difference: str
