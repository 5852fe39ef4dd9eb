"""Payloads that change many blocks are applied in slices, between which queries are answered."""

import random

import pytest
from index_core_helpers import KINDS, PROMPT, matched, new_core, payload, removed, stored

from kvsync_events import AllBlocksCleared
from kvsync_indexer.core import holdings
from kvsync_indexer.core.giving import GivingLock

MANY = 9_000
"""More than two slices of either core."""
HASHES = random.Random(5).sample(range(1 << 62), MANY)
OTHERS = random.Random(6).sample(range(1 << 62), MANY)


def chain(hashes, parent=None, **fields):
    return stored(hashes, [7] * len(hashes), parent, size=1, **fields)


LARGE = {
    "a chain": [[chain(HASHES)]],
    "chains that share a prefix": [[chain(HASHES[:6000]), chain(HASHES[6000:], HASHES[5000]), chain(OTHERS)]],
    "hashes as bytes": [[chain([one.to_bytes(32, "big") for one in HASHES])]],
    "blocks that wait, and their parent": [[chain(HASHES, parent=3)], [stored([3], [9], size=1)]],
    "blocks that wait for each other": [
        [chain([one], parent=OTHERS[at]) for at, one in enumerate(OTHERS[1:4001])][::-1],
        [chain([OTHERS[0]]), removed(*OTHERS[:2000])],
    ],
    "hashes without tokens": [[stored(HASHES, [], size=0)], [chain(HASHES)]],
    "hashes that come back": [[chain(HASHES)], [removed(*HASHES)], [stored(HASHES, [], size=0, medium="CPU")]],
    "removals in one event": [[chain(HASHES)], [removed(*HASHES[::2]), chain(OTHERS)]],
    "removals one by one": [[chain(HASHES)], [removed(one) for one in HASHES[1000:]]],
    "a clear, and more after it": [[chain(HASHES)], [AllBlocksCleared(), chain(OTHERS, parent=HASHES[5])]],
    "a clear of bytes and waiting blocks": [
        [chain([one.to_bytes(32, "big") for one in HASHES], parent=b"p" * 32)],
        [AllBlocksCleared()],
    ],
    "a clear of one tier": [
        [chain(HASHES), chain(HASHES, medium="CPU"), chain(OTHERS, medium="CPU", group_idx=1)],
        [AllBlocksCleared(medium="CPU"), chain(OTHERS)],
    ],
    "two block sizes": [
        [
            stored(HASHES[:4000], [7] * 8000, size=2, group_idx=0),
            stored(HASHES[:2000], [7] * 8000, size=4, group_idx=1),
        ],
        [stored(HASHES[1000:2000], [7] * 8000, size=4, group_idx=2), removed(*HASHES[:3000], group_idx=0)],
    ],
}


def states(core, batches):
    """What each batch did, and the state after it."""
    for events in batches:
        yield core.apply("a", payload(*events)), core.snapshot(), core.digest("a"), core.stats("a").orphans


@pytest.mark.parametrize("case", LARGE)
def test_slices_change_nothing_but_the_time_that_it_takes(case, monkeypatch):
    sliced = [list(states(new_core(kind), LARGE[case])) for kind in KINDS]
    monkeypatch.setattr(holdings, "SLICE", 1 << 40)
    whole = list(states(new_core("python"), LARGE[case]))
    assert all(one == whole for one in sliced)


@pytest.mark.parametrize("case", LARGE)
def test_queries_are_answered_between_slices(case, monkeypatch):
    core, answers = new_core("python", "a", "b"), []
    core.apply("b", payload(stored([1], PROMPT[:4])))
    monkeypatch.setattr(GivingLock, "give_way", lambda _: answers.append(matched(core, PROMPT, publishers=["b"])))
    for events in LARGE[case]:
        core.apply("a", payload(*events))
    assert len(answers) >= MANY // holdings.SLICE // 2
    assert all(answer == {"b": 1} for answer in answers)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("act", ["clear_publisher", "remove_publisher"])
def test_dropping_many_blocks_says_how_many(kind, act):
    core = new_core(kind, "a", "b")
    for name in ("a", "b"):
        core.apply(name, payload(chain(HASHES)))
    assert getattr(core, act)("a") == MANY
    assert core.clear_publisher("b") == MANY
    assert core.stats().blocks == core.stats().keys == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_payload_is_refused_as_a_whole_however_large(kind):
    core = new_core(kind)
    core.apply("a", payload(chain(HASHES[:10])))
    before = core.snapshot()
    with pytest.raises(Exception, match="characters"):
        core.apply("a", payload(chain(OTHERS), chain(HASHES, medium="x" * 65)))
    assert core.snapshot() == before


def test_a_lock_that_nobody_waits_for_is_kept():
    lock = GivingLock()
    with lock:
        pass
    lock.give_way()
    with lock:
        pass
