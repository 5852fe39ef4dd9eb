"""`Engine.advance` gives the same outputs, times, events, blocks and counters as single steps."""

import random
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvsync_mockpod.engine import Engine, Executor, LoraRef
from kvsync_mockpod.engine.latency import make_latency
from kvsync_testkit.scheduler import EOS_TOKEN, ScriptedExecutor, engine_config, make_request


class KnownEndsExecutor(Executor):
    """Knows where each request ends, and counts the tokens that are requested one by one."""

    ends_are_known = True

    def __init__(self, eos_at=None):
        self.table = ScriptedExecutor(eos_at=eos_at)
        self.asked = 0

    def sample(self, request, index):
        self.asked += 1
        return self.table.sample(request, index)

    def samples(self, request, first, count):
        return [self.table.sample(request, i) for i in range(first, first + count)]

    def stop_index(self, request):
        given = self.table.eos_at.get(request.request_id)
        if given is None or request.ignore_eos:
            return request.max_tokens - 1
        return min(given, request.max_tokens - 1)


class DistinctExecutor(KnownEndsExecutor):
    outputs_are_distinct = True


def workload(rng, *, loras):
    arrivals, now = [], 0.0
    eos = {}
    for i in range(rng.choice([5, 20, 45])):
        now += rng.choice([0.0, 0.0, 0.001, 0.02, 0.5]) * rng.random()
        rid = f"r{i}"
        values = {"priority": rng.randrange(3), "arrival_s": now}
        if loras and rng.random() < 0.4:
            k = rng.randrange(3)
            values["lora"] = LoraRef(f"ad{k}", k + 1, f"ad{k}")
        if rng.random() < 0.2:
            eos[rid] = rng.randint(0, 30)
        if rng.random() < 0.1:
            values["ignore_eos"] = True
        n = rng.choice([1, 7, 16, 32, rng.randint(1, 200)])
        arrivals.append((now, make_request(rid, n=n, max_tokens=rng.randint(1, 60), stream=rng.randrange(4), **values)))
    return arrivals, eos


def knobs(rng):
    blocks = rng.choice([24, 40, 300])
    return {
        "block_size": rng.choice([1, 4, 16]) if blocks == 300 else 16,
        "num_gpu_blocks": blocks,
        "max_model_len": 270,
        "max_num_seqs": rng.choice([2, 5, 16]),
        "max_num_batched_tokens": rng.choice([16, 40, 128]),
        "policy": rng.choice(["fcfs", "priority"]),
        "enable_prefix_caching": rng.random() < 0.9,
        "scheduler_reserve_full_isl": rng.random() < 0.8,
        "long_prefill_token_threshold": rng.choice([0, 0, 20]),
        "watermark": rng.choice([0.0, 0.1]),
        "max_loras": rng.choice([0, 1, 2]),
    }


LATENCY = {"prefill_us": 900, "prefill_token_us": 15, "decode_us": 700, "decode_seq_us": 20, "kv_token_us": 0.5}


def step_by_step(engine, arrivals):
    """The reference for `advance`, computed with single steps only."""
    now, first, finished, gaps, batches, last, steps = 0.0, [], [], Counter(), [], {}, 0
    pending = list(arrivals)
    while pending or engine.has_work():
        while pending and pending[0][0] <= now:
            engine.add_request(pending.pop(0)[1])
        if not engine.has_work():
            now = pending[0][0]
            continue
        result = engine.step(now)
        now += result.duration_s
        steps += 1
        for output in result.outputs:
            rid = output.request_id
            if output.new_token_ids:
                if rid in last:
                    gaps[now - last[rid]] += 1
                else:
                    first.append((rid, now))
                last[rid] = now
            if output.finish_reason is not None:
                finished.append((rid, output.finish_reason, now))
        if result.events:
            batches.append((now, result.events))
    return now, first, finished, gaps, batches, steps


def in_one_go(engine, arrivals, rng):
    now, first, finished, gaps, batches, steps = 0.0, [], [], Counter(), [], 0

    def advance(until, **limits):
        nonlocal now, steps
        progress = engine.advance(now, until, **limits)
        now = progress.now
        steps += progress.steps
        first.extend(progress.first_tokens)
        finished.extend((f.request_id, f.reason, f.at_s) for f in progress.finished)
        gaps.update(progress.gaps_us)
        batches.extend(progress.batches)

    for at, r in arrivals:
        if now < at and rng.random() < 0.3:
            advance(at, max_steps=rng.randint(1, 5))
        while now < at and engine.has_work():
            advance(at)
        now = max(now, at)
        engine.add_request(r)
    while engine.has_work():
        advance(float("inf"))
    return now, first, finished, gaps, batches, steps


def sorted_gaps(gaps):
    """All times between tokens in microseconds, in ascending order."""
    return sorted(Counter(gaps).elements())


RECORDED = {}
COUNTED = {"keep_tokens": False, "log_entries": 0}
"""Blocks are only counted; together with outputs that no prompt repeats, this leads to `DeferredBlocks`."""


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    kind=st.sampled_from([KnownEndsExecutor, DistinctExecutor, ScriptedExecutor]),
    recording=st.sampled_from([RECORDED, COUNTED]),
)
@example(
    seed=999, kind=DistinctExecutor, recording=RECORDED
)  # a budget that does not suffice for all decoding sequences
def test_advance_equals_step_by_step(seed, kind, recording):
    rng = random.Random(seed)
    values = knobs(rng)
    arrivals, eos = workload(rng, loras=values["max_loras"] > 0)
    jitter = rng.choice([0.0, 0.2])

    def engine():
        latency = make_latency(LATENCY, jitter=jitter, seed=seed)
        return Engine(engine_config(**values, **recording), kind(eos_at=eos), latency, publish=recording is RECORDED)

    reference, fast = engine(), engine()
    expected = step_by_step(reference, arrivals)
    got = in_one_go(fast, arrivals, rng)
    assert got[0] == expected[0]
    assert got[1] == expected[1], "first tokens"
    assert got[2] == expected[2], "ends"
    assert sorted_gaps(got[3]) == pytest.approx([g * 1e6 for g in sorted_gaps(expected[3])], abs=0.51), "gaps"
    assert got[4] == expected[4], "events"
    assert got[5] == expected[5], "number of steps"
    assert fast.statistics() == reference.statistics()
    assert by_hash(fast) == by_hash(reference)
    assert list(fast.log.since(0)) == list(reference.log.since(0))


def by_hash(engine):
    return sorted(engine.blocks(), key=lambda block: block.hash)


@pytest.mark.parametrize("recording", [RECORDED, COUNTED])
@pytest.mark.parametrize("steps", [1, 17, 30, 33])
def test_state_read_in_between_equals_that_of_single_steps(recording, steps):
    def engine():
        made = Engine(
            engine_config(**recording),
            DistinctExecutor(),
            make_latency({"decode_us": 1000}),
            publish=recording is RECORDED,
        )
        for i in range(4):
            made.add_request(make_request(f"r{i}", n=20 + i, max_tokens=40))
        return made

    single, fast = engine(), engine()
    for _ in range(steps):
        single.step()
    fast.advance(0.0, max_steps=steps)
    assert fast.statistics() == single.statistics()
    assert by_hash(fast) == by_hash(single)
    assert fast.statistics().stored_blocks == (4 if steps < 9 else 8 if steps < 25 else 12)
    fast.advance(0.0, max_steps=100)
    while single.has_work():
        single.step()
    assert fast.statistics() == single.statistics()
    assert by_hash(fast) == by_hash(single)


def test_an_abort_in_between_finds_all_counters_up_to_date():
    def play(advance):
        engine = Engine(engine_config(), KnownEndsExecutor(), make_latency({"decode_us": 1000}))
        for i in range(4):
            engine.add_request(make_request(f"r{i}", n=20, max_tokens=40))
        if advance:
            engine.advance(0.0, max_steps=17)
        else:
            for _ in range(17):
                engine.step()
        assert engine.abort("r1")
        outputs = {}
        while engine.has_work():
            for o in engine.step().outputs:
                outputs.setdefault(o.request_id, []).extend(o.new_token_ids)
        return outputs, engine.statistics()

    assert play(advance=True) == play(advance=False)


def test_eos_ends_a_request_in_the_middle_of_a_stretch():
    engine = Engine(engine_config(), KnownEndsExecutor(eos_at={"a": 9}), make_latency({"decode_us": 1000}))
    engine.add_request(make_request("a", n=20, max_tokens=40))
    engine.add_request(make_request("b", n=20, max_tokens=40))
    progress = engine.advance(0.0)
    ends = {f.request_id: (f.reason, f.output_tokens) for f in progress.finished}
    assert ends == {"a": ("stop", 10), "b": ("length", 40)}
    assert engine.config.eos_token_id == EOS_TOKEN


def test_only_first_tokens_are_asked_for_one_by_one():
    executor = KnownEndsExecutor()
    engine = Engine(engine_config(), executor, make_latency({"decode_us": 1000}))
    for i in range(6):
        engine.add_request(make_request(f"r{i}", n=20, max_tokens=100))
    progress = engine.advance(0.0)
    assert sum(f.output_tokens for f in progress.finished) == 600
    assert executor.asked == 6
