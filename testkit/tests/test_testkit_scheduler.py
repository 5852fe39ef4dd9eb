"""The scheduler kit: executors, the clock, the builder, and step-log assertions that fail when they should."""

import pytest

from kvsync_mockpod.engine import EngineConfigError, StepLoad, StepResult, TierConfig
from kvsync_testkit.clock import VirtualClock
from kvsync_testkit.errors import ConfigurationError
from kvsync_testkit.scheduler import (
    EOS_TOKEN,
    FailingExecutor,
    RecordingLatency,
    RefusingExecutor,
    SchedulerBuilder,
    ScriptedExecutor,
    StepLog,
    make_request,
    prompt_tokens,
    run_requests,
)


def test_a_scripted_executor_follows_its_table_and_then_the_request():
    executor = ScriptedExecutor({"a": [7, 8]}, eos_at={"a": 4})
    a, b = make_request("a"), make_request("b")
    tokens = [executor.sample(a, i) for i in range(5)]
    assert tokens[:2] == [7, 8]
    assert tokens[4] == EOS_TOKEN
    assert EOS_TOKEN not in tokens[:4]
    assert tokens[2] == ScriptedExecutor().sample(a, 2), "the same in every run"
    assert executor.sample(a, 3) != executor.sample(b, 3)


def test_prompts_of_one_stream_share_their_beginning_and_others_nothing():
    assert prompt_tokens(1, 40)[:16] == prompt_tokens(1, 16)
    assert prompt_tokens(1, 20, first=20) == prompt_tokens(1, 40)[20:]
    assert not set(prompt_tokens(1, 64)) & set(prompt_tokens(2, 64))


def test_the_clock_moves_by_the_steps_and_is_the_one_given():
    clock = VirtualClock(5.0)
    fired = []
    clock.call_at(5.015, lambda: fired.append(clock.now))
    scheduler = SchedulerBuilder().clock(clock).latency(RecordingLatency(0.01)).requests(make_request("a")).build()
    scheduler.until_idle()
    assert scheduler.now == clock.now == pytest.approx(5.04)
    assert scheduler.outcomes["a"].token_times == pytest.approx([5.01, 5.02, 5.03, 5.04])
    assert fired == [5.015]


def test_the_clock_waits_for_transfers_that_nothing_can_run_before():
    tiers = TierConfig.build(block_bytes=10**6, host_blocks=64, host_to_device_bandwidth=1e8)
    builder = SchedulerBuilder(num_gpu_blocks=17, max_model_len=256).tiers(tiers)
    scheduler = builder.build()
    for rid, stream in (("a", 1), ("b", 2), ("c", 3), ("again", 1)):
        scheduler.add(make_request(rid, n=120, stream=stream))
        scheduler.until_idle()
    assert scheduler.outcomes["again"].cached_tokens == 112
    moved = scheduler.engine.statistics().tiers.host_hits
    assert moved >= 6
    assert scheduler.now > moved * 0.01, "each block of 1 MB took 10 ms to come back"
    scheduler.assert_nothing_leaked()


def test_a_recording_latency_keeps_each_load_as_it_was():
    latency = RecordingLatency()
    run_requests([make_request("a", n=20, max_tokens=3)], latency=latency)
    assert latency.loads == [StepLoad(20, 0, 20, 4096), StepLoad(0, 1, 21, 4096), StepLoad(0, 1, 22, 4096)]


def test_failing_steps_are_counted_by_attempt():
    executor = FailingExecutor([1, 2])
    record = run_requests([make_request("a")], executor=executor, step_retries=2)
    assert record.outcomes["a"].reason == "length"
    assert executor.attempts == 4 + 2
    with_error = run_requests([make_request("a")], executor=FailingExecutor([1]))
    assert with_error.outcomes["a"].error == "attempt 1 failed"


def test_a_refused_request_ends_alone_and_announces_nothing():
    record = run_requests([make_request("a"), make_request("b")], executor=RefusingExecutor(["b"]))
    assert [record.outcomes[rid].reason for rid in "ab"] == ["length", "error"]
    assert [event.token_ids for event in record.events] == [make_request("a").prompt_token_ids[:16]]
    record.assert_nothing_leaked()


def test_builders_refuse_what_does_not_exist():
    with pytest.raises(EngineConfigError, match="did you mean 'max_num_seqs'"):
        SchedulerBuilder().settings(max_num_seq=1).build()
    scheduler = SchedulerBuilder().build()
    scheduler.add(make_request("a"))
    with pytest.raises(ConfigurationError, match="'a' was queued before"):
        scheduler.add(make_request("a"))


def step(number, scheduled, finished=()):
    return StepResult(number, scheduled=list(scheduled), finished=[(rid, "length") for rid in finished])


LOG = StepLog([step(0, [("a", 20)]), step(1, [("a", 1), ("b", 30)]), step(2, [("b", 1)], ["a", "b"])])


def test_a_log_answers_questions():
    assert LOG.of("a") == [0, 1]
    assert LOG.batches() == [["a"], ["a", "b"], ["b"]]
    assert LOG.tokens() == [20, 31, 1]
    assert LOG.ends() == ["a", "b"]
    LOG.assert_limits(max_num_seqs=2, max_num_batched_tokens=31, reached=True)
    LOG.assert_one_end_each(["a", "b"])


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"max_num_seqs": 1, "max_num_batched_tokens": 31}, "step 1 runs 2 requests, 1 are allowed"),
        ({"max_num_seqs": 2, "max_num_batched_tokens": 30}, "step 1 computes 31 tokens, 30 are allowed"),
        ({"max_num_seqs": 3, "max_num_batched_tokens": 31, "reached": True}, "no step runs as many requests"),
        ({"max_num_seqs": 2, "max_num_batched_tokens": 32, "reached": True}, "no step computes as many tokens"),
    ],
)
def test_a_log_that_breaks_a_limit_fails(limits, says):
    with pytest.raises(AssertionError, match=says):
        LOG.assert_limits(**limits)


@pytest.mark.parametrize(
    ("log", "ids", "says"),
    [
        (LOG, ["a"], "b: 1"),
        (LOG, ["a", "b", "c"], "c: 0"),
        (StepLog([*LOG, step(3, [], ["a"])]), ["a", "b"], "a: 2"),
    ],
)
def test_a_log_with_too_many_or_too_few_ends_fails(log, ids, says):
    with pytest.raises(AssertionError, match=says):
        log.assert_one_end_each(ids)


def test_a_leak_is_named():
    scheduler = SchedulerBuilder().requests(make_request("a", n=40)).build()
    scheduler.step()
    with pytest.raises(AssertionError, match="1 requests run, 0 wait"):
        scheduler.assert_nothing_leaked()
