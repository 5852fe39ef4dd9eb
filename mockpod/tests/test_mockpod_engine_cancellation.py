"""Integration test 8: a cancellation in any state changes no other request and keeps no block."""

import asyncio

import pytest

from kvsync_mockpod.engine import Engine
from kvsync_testkit.scheduler import SchedulerBuilder, ScriptedExecutor, engine_config, make_request


def play(abort_id=None, abort_before_step=None, *, during=False, asynchronous=False, **values):
    driver = SchedulerBuilder(max_num_seqs=3, async_scheduling=asynchronous, **values).build()
    engine = driver.engine
    driver.add(*(make_request(f"r{i}", n=40 + i, max_tokens=12) for i in range(6)))
    while engine.has_work():
        if abort_before_step == len(driver.steps):
            assert engine.abort(abort_id, during_step=during)
            if not during:
                held = engine.statistics().total_blocks - engine.statistics().free_blocks
                driver.held_after_abort = held
        driver.step()
    return driver


STATES = {"waiting": ("r5", 1), "prefilling": ("r1", 1), "running": ("r0", 4)}


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("during", [False, True])
@pytest.mark.parametrize("state", STATES)
def test_8_the_others_are_bit_identical_and_nothing_leaks(state, during, asynchronous):
    victim, before = STATES[state]
    plain = play(asynchronous=asynchronous)
    cut = play(victim, before, during=during, asynchronous=asynchronous)
    assert cut.outcomes[victim].reason == "abort"
    assert len(cut.outcomes[victim].tokens) < 12
    for rid, outcome in plain.outcomes.items():
        if rid != victim:
            assert cut.outcomes[rid].tokens == outcome.tokens
            assert cut.outcomes[rid].reason == outcome.reason
    stats = cut.engine.statistics()
    assert stats.free_blocks == stats.total_blocks
    assert stats.finished == {"abort": 1, "length": 5}


def test_8_blocks_are_free_at_once():
    driver = SchedulerBuilder().build()
    engine = driver.engine
    driver.add(make_request("a", n=100, max_tokens=50))
    for _ in range(4):
        driver.step()
    assert engine.statistics().free_blocks < engine.statistics().total_blocks
    assert engine.abort("a")
    driver.assert_nothing_leaked()
    step = driver.step()
    assert step.scheduled == []
    assert step.finished == [("a", "abort")]
    assert not engine.has_work()


def test_8_a_finished_or_unknown_request_cannot_be_aborted():
    driver = SchedulerBuilder().build()
    engine = driver.engine
    driver.add(make_request("a", max_tokens=2))
    driver.until_idle()
    assert driver.outcomes["a"].reason == "length"
    assert not engine.abort("a")
    assert not engine.abort("unknown")
    assert driver.outcomes["a"].reason == "length"
    assert engine.statistics().finished == {"length": 1}


def test_8_a_preempted_request_can_be_aborted():
    driver = SchedulerBuilder(num_gpu_blocks=10, max_model_len=128).build()
    engine = driver.engine
    driver.add(make_request("a", n=60, max_tokens=60), make_request("b", n=60, max_tokens=60))
    while not any(step.preempted for step in driver.steps):
        driver.step()
    victim = next(step.preempted[0] for step in driver.steps if step.preempted)
    assert engine.abort(victim)
    driver.until_idle()
    assert driver.outcomes[victim].reason == "abort"
    assert [o.reason for r, o in driver.outcomes.items() if r != victim] == ["length"]
    driver.assert_nothing_leaked()


async def test_8_a_cancelled_caller_gets_cancelled_error():
    """The smallest live driver: one task per request, cancelled by its caller."""
    engine = Engine(engine_config(), ScriptedExecutor())
    results = {}

    async def call(rid):
        done = results[rid] = asyncio.get_running_loop().create_future()
        engine.add_request(make_request(rid, max_tokens=20))
        try:
            return await done
        except asyncio.CancelledError:
            engine.abort(rid)
            raise

    async def drive():
        while engine.has_work():
            for rid, reason in engine.step().finished:
                if not results[rid].done():
                    results[rid].set_result(reason)
            await asyncio.sleep(0)

    first, second = asyncio.create_task(call("a")), asyncio.create_task(call("b"))
    await asyncio.sleep(0)
    driver = asyncio.create_task(drive())
    for _ in range(3):
        await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await second == "length"
    await driver
    assert engine.statistics().finished == {"abort": 1, "length": 1}
    assert engine.statistics().free_blocks == engine.statistics().total_blocks
