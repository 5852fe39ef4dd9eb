"""Integration tests 14 and 15: failing steps and failing requests follow a stated policy and leak nothing."""

import pytest

from kvsync_mockpod.engine import Engine, RequestFailedError
from kvsync_mockpod.engine.latency import make_latency
from kvsync_testkit.scheduler import (
    FailingExecutor,
    RefusingExecutor,
    SchedulerBuilder,
    ScriptedExecutor,
    SteppedScheduler,
    engine_config,
    make_request,
)


def play(executor, count=6, **values):
    engine = Engine(engine_config(**values), executor, make_latency({"prefill_us": 100, "decode_us": 100}))
    driver = SteppedScheduler(engine)
    driver.add(*(make_request(f"r{i}", n=20, max_tokens=4) for i in range(count)))
    return driver.until_idle()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_14_a_failed_step_ends_its_requests_and_only_those(asynchronous):
    # With max_num_seqs 2, the third attempt concerns r0 and r1, which still decode.
    executor = FailingExecutor([2])
    driver = play(executor, max_num_seqs=2, async_scheduling=asynchronous)
    reasons = {rid: o.reason for rid, o in driver.outcomes.items()}
    assert reasons == {"r0": "error", "r1": "error", "r2": "length", "r3": "length", "r4": "length", "r5": "length"}
    assert driver.outcomes["r0"].error == "attempt 2 failed"
    stats = driver.engine.statistics()
    assert stats.step_failures == 1
    assert stats.finished == {"error": 2, "length": 4}
    assert stats.free_blocks == stats.total_blocks


def test_14_retries_hide_a_failure_and_cost_time():
    plain = play(ScriptedExecutor())
    retried = play(FailingExecutor([1, 4, 5]), step_retries=2)
    assert all(o.reason == "length" for o in retried.outcomes.values())
    assert {r: o.tokens for r, o in plain.outcomes.items()} == {r: o.tokens for r, o in retried.outcomes.items()}
    assert retried.engine.statistics().step_failures == 3
    assert retried.now == pytest.approx(plain.now + 3 * 100e-6)


def test_14_more_failures_than_retries():
    driver = play(FailingExecutor([1, 2, 3]), count=2, step_retries=2)
    assert [o.reason for o in driver.outcomes.values()] == ["error", "error"]
    assert driver.engine.statistics().step_failures == 3


@pytest.mark.parametrize("asynchronous", [False, True])
def test_14_blocks_of_a_failed_step_do_not_stay_in_the_cache(asynchronous):
    executor = FailingExecutor([0])
    driver = SchedulerBuilder(executor=executor, async_scheduling=asynchronous).build()
    engine = driver.engine
    driver.add(make_request("a", n=60, max_tokens=4, stream=1))
    driver.until_idle()
    assert driver.outcomes["a"].reason == "error"
    assert list(engine.blocks()) == []
    stored = [h for e in driver.events if type(e).__name__ == "BlockStored" for h in e.block_hashes]
    removed = [h for e in driver.events if type(e).__name__ == "BlockRemoved" for h in e.block_hashes]
    assert sorted(stored) == sorted(removed)
    driver.add(make_request("b", n=60, max_tokens=4, stream=1))
    driver.until_idle()
    assert driver.outcomes["b"].cached_tokens == 0, "blocks that were never computed must not be hit"
    assert driver.outcomes["b"].reason == "length"


def test_14_computed_blocks_stay_when_a_later_step_fails():
    executor = FailingExecutor([2])
    driver = SchedulerBuilder(executor=executor, max_num_batched_tokens=32).build()
    engine = driver.engine
    driver.add(make_request("a", n=96, max_tokens=4, stream=1))
    driver.until_idle()
    assert len(list(engine.blocks())) == 4, "two chunks of two blocks were computed before the failure"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_15_a_failing_prefill_fails_that_request_alone(asynchronous):
    executor = RefusingExecutor(["r2"])
    driver = play(executor, async_scheduling=asynchronous)
    assert driver.outcomes["r2"].reason == "error"
    assert driver.outcomes["r2"].error == "prefill of r2 failed"
    assert [driver.outcomes[f"r{i}"].reason for i in (0, 1, 3, 4, 5)] == ["length"] * 5
    prompt = make_request("r2", n=20).prompt_token_ids
    announced = [e.token_ids for e in driver.events if type(e).__name__ == "BlockStored"]
    assert announced
    assert not any(tokens[:16] == prompt[:16] for tokens in announced), "refused before any block was announced"
    driver.assert_nothing_leaked()


class BreakingExecutor(ScriptedExecutor):
    """One request fails at its third token."""

    def sample(self, request, index):
        if request.request_id == "r1" and index == 2:
            raise RequestFailedError("r1 broke")
        return super().sample(request, index)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_15_a_request_that_breaks_while_decoding_ends_alone(asynchronous):
    plain = play(ScriptedExecutor(), async_scheduling=asynchronous)
    broken = play(BreakingExecutor(), async_scheduling=asynchronous)
    assert broken.outcomes["r1"].reason == "error"
    assert broken.outcomes["r1"].error == "r1 broke"
    assert broken.outcomes["r1"].tokens == plain.outcomes["r1"].tokens[:2]
    for rid in ("r0", "r2", "r3", "r4", "r5"):
        assert broken.outcomes[rid].tokens == plain.outcomes[rid].tokens
    broken.assert_nothing_leaked()
    assert broken.engine.statistics().generation_tokens == 5 * 4 + 2
