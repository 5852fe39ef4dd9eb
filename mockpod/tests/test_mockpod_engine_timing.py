"""Integration tests 11, 12 and 19 (times): throughput, percentiles and latency models on a virtual clock."""

import random

import pytest

from kvsync_mockpod.engine import EngineConfigError, StepLoad
from kvsync_mockpod.engine.latency import PROFILES, FormulaLatency, QuadraticLatency, make_latency
from kvsync_testkit.scheduler import RecordingLatency, SchedulerBuilder, ScriptedExecutor, make_request, run_requests
from kvsync_workload.percentiles import summarize


def test_11_throughput_is_n_over_virtual_elapsed_exactly():
    # 8 prompts of 16 tokens are computed together (2 ms), followed by 9 decode steps of 1 ms.
    latency = RecordingLatency(make_latency({"prefill_us": 2000, "decode_us": 1000}))
    record = run_requests(
        [make_request(f"r{i}", n=16, max_tokens=10) for i in range(8)], latency=latency, max_num_batched_tokens=128
    )
    assert record.now == pytest.approx(0.002 + 9 * 0.001, abs=1e-12)
    assert all(o.finished_s == record.now for o in record.outcomes.values())
    stats = record.engine.statistics()
    assert stats.generation_tokens / record.now == pytest.approx(80 / 0.011)
    assert latency.loads == [StepLoad(128, 0, 128, 4096)] + [StepLoad(0, 8, 8 * (16 + i), 4096) for i in range(1, 10)]


def test_11_counters_equal_the_history():
    requests = [make_request(f"r{i}", n=10 + 9 * i, max_tokens=2 + i % 5, stream=i % 4) for i in range(30)]
    record = run_requests(
        requests, num_gpu_blocks=40, max_model_len=512, executor=ScriptedExecutor(eos_at={"r3": 1, "r9": 0})
    )
    stats = record.engine.statistics()
    steps = record.steps
    assert stats.steps == len(steps)
    assert stats.scheduled_tokens == sum(n for s in steps for _rid, n in s.scheduled)
    assert stats.generation_tokens == sum(len(o.new_token_ids) for s in steps for o in s.outputs)
    assert stats.prefix_hits == sum(sum(s.hits.values()) for s in steps)
    assert stats.prompt_tokens == sum(len(r.prompt_token_ids) for r in requests)
    assert stats.preemptions == sum(len(s.preempted) for s in steps)
    reasons = [reason for s in steps for _rid, reason in s.finished]
    assert stats.finished == {r: reasons.count(r) for r in set(reasons)}
    assert sum(stats.finished.values()) == stats.requests == 30
    stored = sum(len(e.block_hashes) for e in record.events if type(e).__name__ == "BlockStored")
    removed = sum(len(e.block_hashes) for e in record.events if type(e).__name__ == "BlockRemoved")
    assert (stats.stored_blocks, stats.removed_blocks) == (stored, removed)
    assert removed > 0


def nearest_rank(values, q):
    """The definition of nearest rank: the smallest value such that at least q percent of all values are not larger."""
    ordered = sorted(values)
    return next(v for v in ordered if sum(w <= v for w in ordered) * 100 >= q * len(ordered))


def test_12_latencies_of_a_run():
    requests = [make_request(f"r{i}", n=10 + 5 * i, max_tokens=6) for i in range(40)]
    record = run_requests(requests, latency=QuadraticLatency(), max_num_seqs=4)
    e2e = [o.finished_s - o.arrived_s for o in record.outcomes.values()]
    s = summarize(e2e)
    assert (s.p50, s.p99) == (nearest_rank(e2e, 50), nearest_rank(e2e, 99))
    assert 0 < s.p50 < s.p95 <= s.p99 <= s.max


def test_the_quadratic_form_by_hand():
    model = QuadraticLatency()
    assert model.step_s(StepLoad(1000, 0, 0, 16_000)) == pytest.approx((0.421 + 15.18 + 16.5) / 1000, abs=1e-12)
    assert model.step_s(StepLoad(0, 4, 8_000, 16_000)) == pytest.approx((-6.435 + 27.005 + 5.74) / 1000, abs=1e-12)
    full = model.step_s(StepLoad(0, 4, 16_000, 16_000))
    assert model.step_s(StepLoad(0, 4, 99_000, 16_000)) == full, "the share is at most 1"
    assert model.step_s(StepLoad(0, 0, 0, 16_000)) == 0.0


def test_microseconds_count():
    model = FormulaLatency(decode_us=37.5, decode_seq_us=0.25)
    assert model.step_s(StepLoad(0, 2, 100, 1000)) == pytest.approx(38e-6, abs=1e-15)
    record = run_requests(
        [make_request("a", n=1, max_tokens=3)], latency=make_latency({"prefill_us": 3.5, "decode_us": 1.25})
    )
    assert record.now == pytest.approx(6e-6, abs=1e-15)


def test_every_profile_grows_with_its_load():
    for name, model in PROFILES.items():
        if name == "none":
            assert model.step_s(StepLoad(4096, 64, 10_000, 20_000)) == 0.0
            continue
        small, large = StepLoad(512, 0, 512, 100_000), StepLoad(8192, 0, 8192, 100_000)
        assert 0 < model.step_s(small) < model.step_s(large), name
        few, many = StepLoad(0, 1, 1_000, 100_000), StepLoad(0, 200, 90_000, 100_000)
        assert 0 < model.step_s(few) < model.step_s(many) < 1.0, name


def test_a_decode_step_of_an_8b_model_on_an_h100_takes_several_milliseconds():
    # Reading 16 GB of weights at 70 % of 3.35 TB/s takes 6.85 ms, plus 1 ms of overhead.
    assert PROFILES["h100-llama3-8b"].step_s(StepLoad(0, 1, 0, 1000)) == pytest.approx(7.85e-3, rel=0.01)


def test_jitter_is_bounded_seeded_and_fresh_every_step():
    load = StepLoad(100, 0, 100, 1000)
    plain = make_latency("quadratic").step_s(load)
    first, again, other = (make_latency("quadratic", jitter=0.2, seed=s) for s in (7, 7, 8))
    draws = [first.step_s(load) for _ in range(200)]
    assert draws == [again.step_s(load) for _ in range(200)]
    assert draws != [other.step_s(load) for _ in range(200)]
    assert all(0.8 * plain <= d <= 1.2 * plain for d in draws)
    assert len(set(draws)) > 190


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("quadratik", "did you mean 'quadratic'?"),
        ("{", "not JSON"),
        ({"prefil_us": 1}, "did you mean 'prefill_us'?"),
        ({"decode_us": -1}, "decode_us -1"),
        ('{"jitter": 1.5}', "jitter 1.5"),
    ],
)
def test_a_bad_model_is_one_clear_error(spec, says):
    with pytest.raises(EngineConfigError) as caught:
        make_latency(spec)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_19_a_second_identical_call_is_faster():
    latency = RecordingLatency(make_latency("quadratic"))
    driver = SchedulerBuilder(max_num_batched_tokens=64, latency=latency).build()
    ttft, prefill_steps, loads = {}, {}, {}
    for rid in ("first", "second"):
        start, steps = driver.now, len(driver.steps)
        latency.loads.clear()
        driver.add(make_request(rid, n=300, max_tokens=2, stream=5))
        driver.until_idle()
        outcome = driver.outcomes[rid]
        ttft[rid] = outcome.token_times[0] - start
        loads[rid] = [(load.prefill_tokens, load.decode_seqs, load.active_kv_tokens) for load in latency.loads]
        prefill_steps[rid] = sum(n > 1 for s in driver.steps[steps:] for r, n in s.scheduled if r == rid)
    assert driver.outcomes["first"].cached_tokens == 0
    assert driver.outcomes["second"].cached_tokens == (300 - 1) // 16 * 16
    assert prefill_steps["second"] < prefill_steps["first"]
    assert ttft["second"] < ttft["first"]
    chunks = [(64, 0, 64), (64, 0, 128), (64, 0, 192), (64, 0, 256), (44, 0, 300)]
    assert loads == {"first": [*chunks, (0, 1, 301)], "second": [(12, 0, 300), (0, 1, 301)]}


def test_same_seed_same_times():
    def times(seed):
        rng = random.Random(3)
        requests = [make_request(f"r{i}", n=rng.randint(1, 90), max_tokens=5) for i in range(20)]
        return run_requests(requests, latency=make_latency("quadratic", jitter=0.1, seed=seed)).now

    assert times(1) == times(1)
    assert times(1) != times(2)
