"""Processor sharing: closed forms computed by hand, conservation under random load, the cost of a completion."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvsync_mockpod.engine import Link
from kvsync_mockpod.engine.tiers import LinkReport

MB, GB = 10**6, 10**9


def test_one_megabyte_at_one_gigabyte_a_second_is_exactly_a_millisecond():
    link = Link(GB)
    transfer = link.start(MB, 0.0)
    link.advance(0.0005)
    assert transfer.done_s is None
    link.advance(0.001)
    assert transfer.done_s == 0.001
    assert link.deadline() is None


def test_two_equal_transfers_share_and_end_together_in_start_order():
    link, order = Link(GB), []
    for name in "ab":
        link.start(MB, 0.0, lambda at, name=name: order.append((name, at)))
    assert link.deadline() == 0.002
    link.advance(0.002)
    assert order == [("a", 0.002), ("b", 0.002)]


def test_a_late_starter_slows_the_first_and_loses_it_nothing():
    # a: 1 MB alone for 0.5 ms (half done), then shared: 0.5 MB at 0.5 GB/s takes 1 ms more -> 1.5 ms. b: 1 MB from 0.5
    # ms on; half done at 1.5 ms, the other half alone takes 0.5 ms -> 2.0 ms.
    link = Link(GB)
    a = link.start(MB, 0.0)
    b = link.start(MB, 0.0005)
    assert link.deadline() == pytest.approx(0.0015, abs=1e-15)
    link.advance(0.01)
    assert a.done_s == pytest.approx(0.0015, abs=1e-15)
    assert b.done_s == pytest.approx(0.0020, abs=1e-15)
    assert link.report() == LinkReport(2, 2 * MB, pytest.approx(0.002))


def test_sizes_one_two_three_by_hand():
    # Three transfers share the link: the smallest ends at 3 ms. Two share the next 1 MB each: 2 ms more. The last is
    # alone: 1 ms more.
    link = Link(GB)
    transfers = [link.start(n * MB, 0.0) for n in (3, 1, 2)]
    link.advance(1.0)
    assert [t.done_s for t in transfers] == pytest.approx([0.006, 0.003, 0.005], abs=1e-12)


def test_an_end_may_start_the_next_transfer_at_its_own_time():
    link, seen = Link(GB), []
    link.start(MB, 0.0, lambda at: seen.append(link.start(MB, at)))
    link.advance(0.01)
    assert seen[0].started_s == 0.001
    assert seen[0].done_s == pytest.approx(0.002, abs=1e-15)


def test_idle_links_have_no_deadline_and_advance_for_free():
    link = Link(GB)
    link.advance(5.0)
    assert link.deadline() is None
    assert link.report() == LinkReport(0, 0, 0.0)
    assert link.start(MB, 5.0).started_s == 5.0


def test_infinite_bandwidth_ends_at_once():
    link = Link(float("inf"))
    transfer = link.start(MB, 2.0)
    assert link.deadline() == 2.0
    link.advance(2.0)
    assert transfer.done_s == 2.0


def by_definition(jobs, bandwidth):
    """The direct simulation: between any two events, every active transfer progresses by its share."""
    left, done, now = {}, {}, 0.0
    arrivals = list(enumerate(jobs))
    while left or arrivals:
        rate = bandwidth / len(left) if left else 0.0
        end = now + min(left.values()) / rate if left else float("inf")
        arrival = arrivals[0][1][0] if arrivals else float("inf")
        moment = min(end, arrival)
        left = {i: b - (moment - now) * rate for i, b in left.items()}
        now = moment
        for i in [i for i, b in left.items() if b <= 1e-6]:
            done[i] = now
            del left[i]
        while arrivals and arrivals[0][1][0] <= now:
            i, (_at, size) = arrivals.pop(0)
            left[i] = float(size)
    return [done[i] for i in range(len(jobs))]


JOBS = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 1000)), min_size=1, max_size=30)


@settings(deadline=None, max_examples=80)
@given(jobs=JOBS, polls=st.lists(st.floats(0, 200, allow_nan=False), max_size=20))
def test_random_lives_equal_the_definition_and_conserve_bytes(jobs, polls):
    jobs = sorted((float(at), size) for at, size in jobs)
    link = Link(10.0)
    transfers, order = [], []
    moments = sorted([(at, 1, size) for at, size in jobs] + [(at, 0, 0) for at in polls])
    for at, is_start, size in moments:
        if is_start:
            n = len(transfers)
            transfers.append(link.start(size, at, lambda _at, n=n: order.append(n)))
        else:
            link.advance(at)
    link.advance(1e9)
    assert [t.done_s for t in transfers] == pytest.approx(by_definition(jobs, 10.0), rel=1e-9, abs=1e-6)
    report = link.report()
    assert report.transfers == len(jobs)
    assert report.bytes == sum(size for _at, size in jobs), "bytes in are bytes out"
    assert report.busy_s * 10.0 == pytest.approx(report.bytes, rel=1e-9), (
        "busy whenever there is work, never above the bandwidth"
    )
    ends = [(transfers[n].done_s, n) for n in order]
    assert ends == sorted(ends, key=lambda e: e[0]), "ends are reported in time order"
    for (t1, n1), (t2, n2) in pairwise(ends):
        if t1 == t2 and transfers[n1].started_s == transfers[n2].started_s and jobs[n1][1] == jobs[n2][1]:
            assert n1 < n2, "ties in start order"


class CountedSize(float):
    """A number of bytes whose sums count their comparisons, which measures the work of a heap."""

    made = 0

    def __radd__(self, other):
        return _CountedEnd(float(other) + float(self))


class _CountedEnd(float):
    def __lt__(self, other):
        CountedSize.made += 1
        return float.__lt__(self, other)


@pytest.mark.parametrize("n", [256, 1024, 4096])
def test_a_completion_costs_log_n(n):
    rng = random.Random(n)
    link = Link(GB)
    CountedSize.made = 0
    for _ in range(n):
        link.start(CountedSize(rng.randint(1, MB)), 0.0)
    link.advance(1e9)
    assert link.report().transfers == n
    assert 0 < CountedSize.made < 3 * n * n.bit_length(), "N transfers together cost O(N log N) comparisons"
