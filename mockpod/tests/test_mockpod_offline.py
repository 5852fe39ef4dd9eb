"""Offline replay: determinism, agreement with the engine's own steps and with live prompts, routers and limits."""

import dataclasses
import itertools
import json
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvsync_events import BlockStored, RemovedRun, StoredRun
from kvsync_mockpod.engine import EngineConfig, EngineConfigError, TierConfig
from kvsync_mockpod.offline import (
    LeastRequestRouter,
    RandomRouter,
    ReplayConfig,
    RoundRobinRouter,
    replay,
)
from kvsync_mockpod.offline.model import PromptHashes
from kvsync_workload.arrivals import Arrivals
from kvsync_workload.ideal import compute_ideal
from kvsync_workload.prompts import make_prompts
from kvsync_workload.trace import FIRST_PRIVATE_ID, MAX_HASH_ID, TRACE_BLOCK_TOKENS, TraceRequest


def make_trace(seed, count=60, gap_s=0.4):
    """Conversations that grow: prefixes of ids are shared, the last id of a prompt is its own."""
    rng = random.Random(seed)
    chats, next_id, now, out = [[0]], 1, 0.0, []
    for _ in range(count):
        now += rng.random() * gap_s
        chat = list(rng.choice(chats))
        for _ in range(rng.randint(0, 4)):
            chat.append(next_id)
            next_id += 1
        chats.append(chat)
        tail = rng.choice([0, rng.randint(1, TRACE_BLOCK_TOKENS - 1)])
        ids = (*chat, next_id) if tail else tuple(chat)
        next_id += bool(tail)
        out.append(TraceRequest(now, len(chat) * TRACE_BLOCK_TOKENS + tail, rng.randint(1, 90), ids))
    return out


def small(**values):
    engine = EngineConfig.build(
        **{"num_gpu_blocks": 1200, "max_model_len": 16384, "max_num_batched_tokens": 2048} | values.pop("engine", {})
    )
    return ReplayConfig(**{"engine": engine} | values)


@given(st.integers(1, 3000), st.sampled_from([1, 16, 64, 512, 1024]), st.data())
def test_lazy_prompt_hashes_are_a_sequence(n, size, data):
    blocks = -(-n // TRACE_BLOCK_TOKENS)
    path = sorted(data.draw(st.sets(st.integers(1, 9), min_size=blocks, max_size=blocks)))
    hashes = PromptHashes(path, n, size)
    whole = list(hashes)
    assert len(whole) == len(hashes) == len(set(whole)) == n // size
    assert hashes[:] == whole
    if whole:
        at = data.draw(st.integers(-len(whole), len(whole) - 1))
        assert hashes[at] == whole[at]
    assert whole == [hashes[at] for at in range(len(whole))]
    with pytest.raises(IndexError):
        hashes[len(whole)]


@pytest.mark.parametrize("size", [8, 16, 128, 512])
def test_an_ample_cache_and_one_request_at_a_time_reach_the_ideal(size):
    trace = make_trace(1)
    config = small(
        arrivals=Arrivals(max_in_flight=1),
        engine={"num_gpu_blocks": 400_000 // size, "block_size": size},
    )
    result = replay(trace, config, RoundRobinRouter())
    ideal = sum(compute_ideal(trace, size).hit_tokens)
    assert sum(r.cached_tokens for r in result.records) == result.ideal_hit_tokens == ideal
    assert result.summary()["hit_ratio"] == result.summary()["ideal_hit_ratio"] > 0.3


def test_same_seed_same_bytes_other_seed_other_bytes():
    trace = make_trace(2)

    def dump(seed):
        config = small(workers=3, seed=seed, jitter=0.1, arrivals=Arrivals("poisson", rate=3.0))
        return json.dumps(replay(trace, config, RandomRouter(seed)).summary(), sort_keys=True)

    assert dump(7) == dump(7)
    assert dump(7) != dump(8)


def test_every_request_ends_and_counters_agree():
    trace = make_trace(3)
    result = replay(trace, small(workers=2), LeastRequestRouter())
    assert all(r.ok for r in result.records)
    for record, request in zip(result.records, trace, strict=True):
        assert record.output_tokens == request.output_tokens
        assert record.arrival_s < record.first_token_s <= record.ended_s
    summary = result.summary()
    assert summary["requests"] == 60
    assert summary["failed"] == 0
    assert summary["itl_ms"]["count"] == sum(r.output_tokens - 1 for r in trace)
    assert sum(w.requests for w in result.workers) == 60
    assert result.steps == sum(w.steps for w in result.workers)
    assert summary["duration_s"] == max(r.ended_s for r in result.records)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), asynchronous=st.booleans())
def test_knowing_the_ends_changes_nothing(seed, asynchronous):
    """The stretches done in one go give what single steps give."""
    from kvsync_mockpod.offline import model

    trace = make_trace(seed, count=25)
    config = small(workers=2, asynchronous=asynchronous, engine={"num_gpu_blocks": 1030, "max_num_seqs": 4})
    quick = replay(trace, config, RoundRobinRouter())
    model.TraceExecutor.ends_are_known = False
    try:
        slow = replay(trace, config, RoundRobinRouter())
    finally:
        model.TraceExecutor.ends_are_known = True
    assert quick.records == slow.records
    assert [w.steps for w in quick.workers] == [w.steps for w in slow.workers]


class WatchingRouter(RoundRobinRouter):
    """Keeps what it was shown, and checks that it is shown in order."""

    wants_events = True
    wants_loads = True

    def __init__(self):
        super().__init__()
        self.seen = []
        self.times = []

    def choose(self, request, now, loads):
        assert all(at <= now for at in self.times), "only what was published before the decision is known"
        assert all(load.in_flight >= 0 for load in loads)
        self.loads = loads
        return super().choose(request, now, loads)

    def observe(self, worker, now, events):
        assert not self.times or now >= self.times[-1]
        self.times.append(now)
        self.seen += [(worker, e) for e in events]


def test_a_router_sees_every_event_in_order_of_time():
    trace, router = make_trace(4), WatchingRouter()
    result = replay(trace, small(workers=3), router)
    stored = Counter()
    for worker, event in router.seen:
        if isinstance(event, BlockStored):
            stored[worker] += len(event.block_hashes)
            assert len(event.token_ids) == 16 * len(event.block_hashes)
    assert [stored[i] for i in range(3)] == [w.stored_blocks for w in result.workers]
    blind = replay(trace, small(workers=3), RoundRobinRouter())
    assert blind.records == result.records, "watching changes nothing"


class RunsRouter(WatchingRouter):
    wants_events = False
    wants_runs = True


def replayed_sets(seen):
    """The resident hashes by worker and medium after everything that was published, with their copies."""
    resident = Counter()
    for worker, change in seen:
        stored = isinstance(change, (BlockStored, StoredRun))
        hashes = change.hashes if isinstance(change, (StoredRun, RemovedRun)) else change.block_hashes
        resident.update({(worker, change.medium, one): 1 if stored else -1 for one in hashes})
    return +resident


@pytest.mark.parametrize("with_tiers", [False, True])
def test_runs_tell_the_same_as_events(with_tiers):
    tiers = TierConfig.build(block_bytes=2**21, host_blocks=300, disk_blocks=4000) if with_tiers else None
    config = small(workers=2, engine={"num_gpu_blocks": 1030, "max_num_seqs": 2}, tiers=tiers)
    trace, events, runs = make_trace(8, count=40), WatchingRouter(), RunsRouter()
    of_events, of_runs = replay(trace, config, events), replay(trace, config, runs)
    assert of_runs == of_events
    assert any(isinstance(change, RemovedRun) for _, change in runs.seen)
    assert replayed_sets(runs.seen) == replayed_sets(events.seen)


@pytest.mark.parametrize("cap", [1, 3])
def test_a_cap_on_requests_in_flight_holds(cap):
    trace = make_trace(6, gap_s=0.01)
    result = replay(trace, small(workers=2, arrivals=Arrivals(max_in_flight=cap)), LeastRequestRouter())
    moments = sorted([(r.sent_s, 1) for r in result.records] + [(r.ended_s, -1) for r in result.records])
    level = highest = 0
    for _at, change in moments:
        level += change
        highest = max(highest, level)
    assert highest == cap
    assert all(r.sent_s >= r.arrival_s for r in result.records)
    assert any(r.sent_s > r.arrival_s for r in result.records)


def one_by_one(requests, size=16):
    """A replay with room for everything and one request at a time, watched."""
    router = WatchingRouter()
    config = small(arrivals=Arrivals(max_in_flight=1), engine={"num_gpu_blocks": 400_000 // size, "block_size": size})
    return replay(requests, config, router), router


def test_any_block_id_keeps_its_identity():
    """Ids that agree in their low 32 bits are different blocks, and hashes stay inside 64 bits."""
    high, low, private = (2**32 + 1, MAX_HASH_ID), (1, MAX_HASH_ID - 2**32), (1, FIRST_PRIVATE_ID + 7)
    trace = [TraceRequest(float(at_s), 1024, 4, ids) for at_s, ids in enumerate((high, low, high, private))]
    result, router = one_by_one(trace)
    assert [record.cached_tokens for record in result.records] == [0, 0, 1008, 512]
    hashes = [block for _, event in router.seen if isinstance(event, BlockStored) for block in event.block_hashes]
    assert max(hashes) < 2**63
    assert len(set(hashes)) == 5 * 1024 // 2 // 16


def test_an_id_after_another_prefix_is_another_block():
    trace = [TraceRequest(float(at_s), 1536, 4, ids) for at_s, ids in enumerate(((1, 2, 3), (4,) * 3, (4, 2, 3)))]
    result, _ = one_by_one(trace)
    assert [record.cached_tokens for record in result.records] == [0, 0, 512]


def test_announced_tokens_are_those_that_a_live_replay_sends():
    trace = [TraceRequest(0.0, 1024 + 300, 4, (5, 2**40, FIRST_PRIVATE_ID + 3))]
    _, router = one_by_one(trace)
    announced = [token for _, event in router.seen if isinstance(event, BlockStored) for token in event.token_ids]
    (prompt,) = make_prompts(trace)
    full = len(prompt.token_ids) // 16 * 16
    assert announced[:full] == prompt.token_ids[:full].tolist()


@pytest.mark.parametrize("shared", [False, True])
def test_tiers_bring_back_what_was_evicted(shared):
    trace = make_trace(8, count=40)
    tiers = TierConfig.build(block_bytes=2**21, host_blocks=300, disk_blocks=4000)
    engine = {"num_gpu_blocks": 1030, "max_num_seqs": 2}
    plain = replay(trace, small(workers=2, engine=engine), RoundRobinRouter())
    tiered = replay(trace, small(workers=2, engine=engine, tiers=tiers, shared_disk=shared), RoundRobinRouter())
    assert all(r.ok for r in tiered.records)
    assert tiered.hit_ratio > plain.hit_ratio
    reports = [w.tiers for w in tiered.workers]
    assert sum(r.host_hits for r in reports) > 0
    assert sum(r.disk_hits for r in reports) > 0
    if shared:
        assert reports[0].disk == reports[1].disk, "one link, one report"
    json.dumps(tiered.summary())


def test_a_prompt_that_is_too_long_is_refused_and_recorded():
    trace = [*make_trace(9, count=3), TraceRequest(9.0, 20_000, 4, tuple(range(100, 140)))]
    result = replay(trace, small(), RoundRobinRouter())
    assert [r.reason for r in result.records] == ["length"] * 3 + ["refused"]
    assert result.summary()["failed"] == 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: replay(make_trace(0, 2), small(workers=0), RoundRobinRouter()), "workers 0"),
        (lambda: replay([], small(), RoundRobinRouter()), "no request"),
        (lambda: replay(make_trace(0, 2), small(latency="slow"), RoundRobinRouter()), "unknown latency profile"),
        (lambda: replay(make_trace(0, 2), small(engine={"block_size": 24}), RoundRobinRouter()), "block_size 24"),
    ],
)
def test_a_bad_configuration_is_one_clear_error(make, says):
    with pytest.raises(EngineConfigError) as caught:
        make()
    assert says in str(caught.value)


def session(number, turns, think_s=1.0, start_s=0.0):
    """The turns of one session, each of which adds a block to the prompt of the one before."""
    ids = tuple(1000 * number + turn for turn in range(turns))
    return [
        TraceRequest(
            start_s + turn, 512 * (turn + 1), 20, ids[: turn + 1], (turn - 1,) if turn else (), think_s if turn else 0.0
        )
        for turn in range(turns)
    ]


def test_a_turn_begins_after_the_answer_to_the_turn_before():
    result = replay(session(1, 4, think_s=2.0), small(), RoundRobinRouter())
    records = result.records
    assert [record.number for record in records] == [0, 1, 2, 3]
    for before, after in itertools.pairwise(records):
        assert after.arrival_s == pytest.approx(before.ended_s + 2.0)
        assert after.sent_s == after.arrival_s
    assert [record.cached_tokens for record in records] == [0, 512, 1024, 1536]


def test_sessions_of_several_workers_keep_the_order_of_time():
    trace = [
        dataclasses.replace(request, waits_for=tuple(base + turn for turn in request.waits_for))
        for number, base in ((1, 0), (2, 5), (3, 10))
        for request in session(number, 5, think_s=0.01 * number, start_s=0.001 * number)
    ]
    for workers in (1, 2):
        result = replay(trace, small(workers=workers), LeastRequestRouter())
        sent = [record.sent_s for record in result.records]
        assert sent == sorted(sent)
        by_number = {record.number: record for record in result.records}
        assert len(by_number) == 15
        for number, request in enumerate(trace):
            for before in request.waits_for:
                assert by_number[number].arrival_s == pytest.approx(by_number[before].ended_s + request.think_s)
        assert result == replay(trace, small(workers=workers), LeastRequestRouter())


def test_a_turn_follows_a_refused_one():
    first, second = session(1, 2)
    too_long = dataclasses.replace(first, input_tokens=40_000, hash_ids=tuple(range(79)))
    result = replay([too_long, second], small(), RoundRobinRouter())
    assert [record.reason for record in result.records] == ["refused", "length"]
    assert result.records[1].arrival_s == pytest.approx(result.records[0].ended_s + 1.0)


def test_a_rate_is_one_of_sessions():
    trace = [
        dataclasses.replace(request, waits_for=tuple(base + turn for turn in request.waits_for))
        for number, base in ((1, 0), (2, 2), (3, 4))
        for request in session(number, 2)
    ]
    result = replay(trace, small(arrivals=Arrivals("rate", rate=0.1)), RoundRobinRouter())
    firsts = [record.arrival_s for record in result.records if record.number % 2 == 0]
    assert firsts == [0.0, 10.0, 20.0]
