"""Integration tests 9, 10 and 17: capacity, preemption, exact release of blocks, no leaks."""

import gc
import tracemalloc
import weakref

import pytest

from kvsync_mockpod.engine import Engine, PromptEmptyError, PromptTooLongError, Request
from kvsync_testkit.scheduler import (
    SchedulerBuilder,
    ScriptedExecutor,
    SteppedScheduler,
    engine_config,
    make_request,
    prompt_tokens,
    run_requests,
)


@pytest.mark.parametrize("policy", ["fcfs", "priority"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_9_overcommit_preempts_and_changes_no_output(policy, asynchronous):
    requests = [make_request(f"r{i}", n=30 + i, max_tokens=60, priority=i % 3) for i in range(10)]
    common = {"policy": policy, "async_scheduling": asynchronous, "max_model_len": 256}
    roomy = run_requests(requests, num_gpu_blocks=400, **common)
    engine = Engine(engine_config(num_gpu_blocks=18, **common), ScriptedExecutor())
    tight = SteppedScheduler(engine)
    tight.add(*requests)
    while engine.has_work():
        tight.step()
        assert 0 <= engine.statistics().free_blocks <= 17
    assert engine.statistics().preemptions == sum(len(step.preempted) for step in tight.steps) > 0
    assert roomy.engine.statistics().preemptions == 0
    for rid, outcome in roomy.outcomes.items():
        assert tight.outcomes[rid].tokens == outcome.tokens
        assert tight.outcomes[rid].reason == outcome.reason


def test_10_a_finished_request_gives_back_exactly_its_unshared_blocks():
    driver = SchedulerBuilder(max_num_batched_tokens=512).build()
    engine = driver.engine
    shared = prompt_tokens(1, 64)
    # The requests share 4 blocks. "a" ends first with 64 + 28 + 4 - 1 tokens written: 6 blocks, of which 2 are its own.
    driver.add(
        Request("a", shared + prompt_tokens(2, 28), max_tokens=4),
        Request("b", shared + prompt_tokens(3, 28), max_tokens=40),
    )
    driver.step()
    used = []
    while "a" in engine.request_ids():
        used.append(engine.statistics().total_blocks - engine.statistics().free_blocks)
        driver.step()
    after = engine.statistics().total_blocks - engine.statistics().free_blocks
    assert used[-1] - after == 2
    assert after == 6, "b holds the shared blocks and its own"
    assert engine.statistics().cached_blocks >= 5, "free blocks may still be cached, which is not a leak"
    driver.until_idle()
    driver.assert_nothing_leaked()


@pytest.mark.parametrize(("n", "error"), [(0, PromptEmptyError), (64, PromptTooLongError), (65, PromptTooLongError)])
def test_17_an_over_limit_prompt_is_refused_with_a_type(n, error):
    engine = Engine(engine_config(max_model_len=64), ScriptedExecutor())
    with pytest.raises(error):
        engine.add_request(Request("a", prompt_tokens(1, n), max_tokens=4))
    assert not engine.has_work()
    assert engine.statistics().refused == 1
    assert engine.statistics().requests == 0


def test_17_the_longest_legal_prompt_is_chunked():
    record = run_requests(
        [Request("a", prompt_tokens(1, 1023), max_tokens=4)], max_model_len=1024, max_num_batched_tokens=128
    )
    assert [n for step in record.steps for _rid, n in step.scheduled] == [128] * 7 + [127]
    assert len(record.outcomes["a"].tokens) == 1
    assert record.outcomes["a"].reason == "length"


def test_17_nothing_survives_a_drain():
    engine = Engine(engine_config(log_entries=0, keep_tokens=False), ScriptedExecutor())
    dead = []
    for i in range(50):
        r = make_request(f"r{i}", n=40, max_tokens=5)
        dead.append(weakref.ref(r))
        engine.add_request(r)
    del r
    while engine.has_work():
        engine.step()
    gc.collect()
    assert not [ref for ref in dead if ref() is not None]
    assert engine.statistics().free_blocks == engine.statistics().total_blocks


def test_17_memory_does_not_grow_with_the_number_of_requests():
    engine = Engine(engine_config(num_gpu_blocks=65, log_entries=200), ScriptedExecutor())

    def live(first):
        for i in range(first, first + 60):
            engine.add_request(make_request(f"r{i}", n=50, max_tokens=6))
            while engine.has_work():
                engine.step()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        sizes = [live(60 * k) for k in range(8)][5:]  # the first rounds fill the log and the cache
    finally:
        tracemalloc.stop()
    assert max(sizes) - min(sizes) < 20_000, sizes
