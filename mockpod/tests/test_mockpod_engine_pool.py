"""The run-based block table equals the reference with one object per block, under random operations."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mockpod_flat_pool import BlockPool as FlatPool
from mockpod_flat_pool import BlockTable as FlatTable

from kvsync_mockpod.engine.pool import BlockPool, BlockTable


class Sink:
    def __init__(self):
        self.gone = []

    def removed(self, hashes, *, last):
        self.gone += [(h, last) for h in hashes]


class FlatSink:
    def __init__(self):
        self.gone = []

    def removed(self, block_hash, *, last):
        self.gone.append((block_hash, last))


class Pair:
    """Both pools, driven with the same operations; every answer must be the same."""

    def __init__(self, blocks, blanks_first):
        self.sink, self.flat_sink = Sink(), FlatSink()
        self.pool = BlockPool(blocks, self.sink, blanks_first=blanks_first)
        self.flat = FlatPool(blocks, self.flat_sink, blanks_first=blanks_first)
        self.live = []

    def arrive(self, chain, limit, blanks):
        hit, found = self.pool.lookup(chain, limit), self.flat.lookup(chain, limit)
        assert hit.blocks == len(found)
        assert hit.idle == sum(not block.holders for block in found)
        if hit.idle + blanks > self.pool.free:
            return
        table, flat = BlockTable(), FlatTable()
        self.pool.hold(table, hit)
        self.flat.hold(flat, found)
        self.pool.allocate(table, blanks)
        self.flat.allocate(flat, blanks)
        self.live.append((chain, table, flat))

    def grow(self, at, blanks):
        chain, table, flat = self.live[at]
        if blanks <= self.pool.free and len(table) + blanks <= len(chain):
            self.pool.allocate(table, blanks)
            self.flat.allocate(flat, blanks)

    def store(self, at, count):
        chain, table, flat = self.live[at]
        first = table.hashed
        new = chain[first : first + min(count, table.blanks)]
        if new:
            if count == 1:
                self.pool.store_one(table, new[0])
            else:
                self.pool.store(table, new)
            self.flat.store(flat, new)

    def unstore(self, at, count):
        chain, table, flat = self.live[at]
        # The engine unstores only blocks that no other sequence holds, has copied or has extended.
        mine = set(chain[: table.hashed])
        first = max(table.hashed - count, 0)
        while first < table.hashed and (
            flat.held[first].holders > 1
            or self.flat.copies(chain[first]) > 1
            or any(h.startswith(chain[first]) and h not in mine for h in self.flat.hashes())
        ):
            first += 1
        self.pool.unstore(table, first)
        self.flat.unstore(flat, first)

    def release(self, at):
        _chain, table, flat = self.live.pop(at)
        self.pool.release(table)
        self.flat.release(flat)

    def check(self):
        assert self.pool.free == self.flat.free
        assert self.pool.resident == self.flat.resident
        assert sorted(self.pool.contents()) == sorted((h, self.flat.copies(h)) for h in self.flat.hashes())
        assert self.sink.gone == self.flat_sink.gone
        for _chain, table, flat in self.live:
            assert table.hashed == len(flat.held)
            assert table.blanks == flat.blanks


def chain(rng, depth):
    """Hashes of a random walk in a narrow tree: chains share prefixes, and a hash identifies its whole prefix."""
    out, name = [], ""
    for _ in range(depth):
        name += rng.choice("aaab")
        out.append(name)
    return out


def live_through(seed, blocks, steps, blanks_first, *, unstore=False):
    rng = random.Random(seed)
    pair = Pair(blocks, blanks_first)
    for _ in range(steps):
        move = rng.random()
        if move < 0.35 or not pair.live:
            depth = rng.randint(1, max(blocks // 2, 1))
            hashes = chain(rng, depth)
            pair.arrive(hashes, rng.randint(max(depth - 2, 0), depth), rng.randint(0, 2))
        else:
            at = rng.randrange(len(pair.live))
            if move < 0.55:
                pair.grow(at, rng.randint(1, 4))
            elif move < 0.8:
                pair.store(at, rng.randint(1, 5))
            elif move < 0.83 and unstore:
                pair.unstore(at, rng.randint(1, 4))
            else:
                pair.release(at)
        pair.check()
    while pair.live:
        pair.release(0)
    pair.check()
    assert pair.pool.free == blocks
    assert pair.pool.reset()
    assert pair.pool.contents() == []


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), blocks=st.sampled_from([1, 3, 8, 20, 60]), blanks_first=st.booleans())
def test_runs_equal_single_blocks(seed, blocks, blanks_first):
    live_through(seed, blocks, 150, blanks_first)


@pytest.mark.parametrize("seed", range(20))
def test_long_lives(seed):
    live_through(seed, 24, 600, blanks_first=seed % 2 == 0, unstore=True)


def test_reset_is_refused_while_blocks_are_held():
    pool = BlockPool(8, Sink())
    table = BlockTable()
    pool.allocate(table, 2)
    pool.store(table, ["a", "ab"])
    assert not pool.reset()
    pool.release(table)
    assert pool.resident == 2
    assert pool.reset()
    assert pool.free == 8
    assert pool.lookup(["a", "ab"], 2).blocks == 0


def test_a_prompt_of_ten_thousand_blocks_is_one_run():
    pool = BlockPool(20_000, Sink())
    table, other = BlockTable(), BlockTable()
    hashes = list(range(10_000))
    pool.allocate(table, 10_000)
    for first in range(0, 10_000, 128):
        pool.store(table, hashes[first : first + 128])
    assert len(table.parts) == 1
    pool.hold(other, pool.lookup(hashes, 9_999))
    assert len(other.parts) == 1
    assert other.hashed == 9_999
