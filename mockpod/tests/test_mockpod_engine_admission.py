"""Refused requests, the bounded queue, draining and pausing, LoRA slots, and configuration errors."""

import pytest

from kvsync_mockpod.engine import (
    DrainingError,
    DuplicateRequestError,
    Engine,
    EngineConfig,
    EngineConfigError,
    InvalidRequestError,
    LoraRef,
    QueueFullError,
    Request,
    RequestRefusedError,
    UnknownLoraError,
)
from kvsync_testkit.scheduler import SchedulerBuilder, ScriptedExecutor, engine_config, make_request, prompt_tokens


def lora(i):
    return LoraRef(f"ad{i}", i, f"adapters/ad{i}")


def test_the_waiting_queue_is_bounded():
    driver = SchedulerBuilder(max_waiting=3, max_num_seqs=1).build()
    engine = driver.engine
    driver.add(*(make_request(f"r{i}") for i in range(3)))
    with pytest.raises(QueueFullError, match=r"waiting queue is full \(3 requests\)"):
        engine.add_request(make_request("r3"))
    driver.step()
    driver.add(make_request("r4"))
    driver.until_idle()
    assert all(o.reason == "length" for o in driver.outcomes.values())
    assert engine.statistics().refused == 1


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (Request("r", prompt_tokens(1, 4), max_tokens=0), InvalidRequestError),
        (Request("r", prompt_tokens(1, 4), max_tokens=1, lora=lora(1)), UnknownLoraError),
        (Request("taken", prompt_tokens(1, 4), max_tokens=1), DuplicateRequestError),
    ],
)
def test_a_refused_request_changes_nothing(bad, error):
    engine = Engine(engine_config(), ScriptedExecutor())
    engine.add_request(make_request("taken"))
    before = engine.statistics()
    with pytest.raises(error) as caught:
        engine.add_request(bad)
    assert isinstance(caught.value, RequestRefusedError)
    after = engine.statistics()
    assert (after.waiting, after.requests, after.refused) == (before.waiting, before.requests, 1)


def test_draining_refuses_new_work_and_finishes_accepted_requests():
    driver = SchedulerBuilder().build()
    engine = driver.engine
    driver.add(make_request("a", n=40, max_tokens=5), make_request("b", n=40, max_tokens=9))
    driver.step()
    engine.drain()
    with pytest.raises(DrainingError):
        engine.add_request(make_request("late"))
    driver.until_idle()
    assert [o.reason for o in driver.outcomes.values()] == ["length", "length"]
    assert driver.events, "what was pending is given out"


def test_pause_new_lets_running_requests_finish_and_admits_none():
    driver = SchedulerBuilder(max_num_seqs=4).build()
    engine = driver.engine
    driver.add(make_request("a", max_tokens=6))
    driver.step()
    engine.pause("new")
    driver.add(make_request("b", max_tokens=2))
    driver.until_idle()
    assert driver.outcomes["a"].reason == "length"
    assert driver.outcomes["b"].reason is None
    engine.pause(None)
    driver.until_idle()
    assert driver.outcomes["b"].reason == "length"


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_pause_all_stops_the_engine_and_loses_no_token(asynchronous, steps):
    """Output in flight is still delivered; after that there is nothing to do until the engine is resumed."""
    driver = SchedulerBuilder(async_scheduling=asynchronous).build()
    engine = driver.engine
    driver.add(make_request("a", max_tokens=6), make_request("b", n=60, max_tokens=8))
    for _ in range(steps):
        driver.step()
    engine.pause("all")
    still = 0
    while engine.has_work():
        assert driver.step().scheduled == []
        still += 1
    assert still == (1 if asynchronous else 0)
    assert not engine.abort("unknown")
    assert not engine.has_work()
    engine.pause(None)
    driver.until_idle()
    assert [len(driver.outcomes[rid].tokens) for rid in "ab"] == [6, 8]


def test_a_reset_under_pause_all_reports_preempted_requests_with_the_output_in_flight():
    driver = SchedulerBuilder(async_scheduling=True).build()
    engine = driver.engine
    driver.add(make_request("a", max_tokens=6), make_request("b", max_tokens=6))
    driver.step()
    engine.pause("all")
    assert engine.reset_prefix_cache(reset_running_requests=True)
    assert driver.step().preempted == ["b", "a"]
    assert not engine.has_work()
    engine.pause(None)
    driver.until_idle()
    assert [driver.outcomes[rid].reason for rid in "ab"] == ["length", "length"]


def test_an_abort_under_pause_all_takes_a_step_to_report_and_no_more():
    driver = SchedulerBuilder(async_scheduling=True).build()
    engine = driver.engine
    driver.add(make_request("a", max_tokens=6), make_request("b", max_tokens=6))
    driver.step()
    engine.pause("all")
    driver.until_idle()
    engine.abort("a")
    assert engine.has_work()
    driver.until_idle()
    assert driver.outcomes["a"].reason == "abort"
    assert not engine.has_work()
    engine.pause(None)
    driver.until_idle()
    assert driver.outcomes["b"].reason == "length"


def test_pause_all_stops_everything_in_place():
    driver = SchedulerBuilder().build()
    engine = driver.engine
    driver.add(make_request("a", max_tokens=6))
    driver.step()
    engine.pause("all")
    assert not engine.has_work()
    held = engine.statistics().free_blocks
    assert engine.step().scheduled == []
    assert engine.statistics().free_blocks == held
    engine.pause(None)
    driver.until_idle()
    assert len(driver.outcomes["a"].tokens) == 6


def test_a_request_without_a_lora_slot_is_skipped_and_keeps_its_place():
    driver = SchedulerBuilder(max_loras=1).build()
    engine = driver.engine
    driver.add(
        make_request("one", max_tokens=5, lora=lora(1)),
        make_request("two", max_tokens=5, lora=lora(2)),
        make_request("three", max_tokens=5, lora=lora(3)),
        make_request("plain", max_tokens=5),
        make_request("one more", max_tokens=5, lora=lora(1)),
    )
    first = driver.step()
    assert list(first.hits) == ["one", "plain", "one more"]
    stats = engine.statistics()
    assert (stats.waiting, stats.waiting_deferred) == (2, 2)
    assert stats.running_loras == ("ad1",)
    assert stats.waiting_loras == ("ad2", "ad3")
    driver.until_idle()
    order = [rid for step in driver.steps for rid in step.hits]
    assert order.index("two") < order.index("three")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"block_size": 0}, "block_size 0"),
        ({"num_gpu_blocks": 10, "max_model_len": 1000}, "needs 63 blocks of 16 tokens"),
        ({"num_gpu_block": 10}, "did you mean 'num_gpu_blocks'?"),
        ({"policy": "lifo"}, "policy 'lifo'"),
        ({"hash_algo": "md5"}, "hash_algo 'md5': vLLM 0.33.0 has sha256, sha256_cbor, xxhash, xxhash_cbor"),
        ({"vllm_version": "seven"}, "'seven' is not a vLLM version"),
        ({"max_num_batched_tokens": 4, "max_num_seqs": 8}, "must be at least max_num_seqs"),
        ({"enable_chunked_prefill": False, "max_num_batched_tokens": 64}, "must be at least max_model_len"),
        ({"watermark": 1.5}, "watermark 1.5"),
        ({"long_prefill_token_threshold": 99_999}, "must be at most max_model_len"),
    ],
)
def test_an_impossible_configuration_is_one_clear_error(values, says):
    with pytest.raises(EngineConfigError) as caught:
        EngineConfig.build(**values)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_configuration_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        EngineConfig().block_size = 32
