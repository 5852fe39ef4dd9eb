"""Integration tests 1, 2, 3, 6 and 7: one request, many requests, and how they end."""

import pytest

from kvsync_mockpod.engine import Engine, Request
from kvsync_mockpod.engine.latency import QuadraticLatency
from kvsync_testkit.scheduler import (
    EOS_TOKEN,
    SchedulerBuilder,
    ScriptedExecutor,
    engine_config,
    make_request,
    prompt_tokens,
    run_requests,
)

CAPITAL = {"ids": [464, 3139, 286, 4881, 318], "answer": [6342, 13, EOS_TOKEN]}
WORDS = {6342: " Paris", 13: "."}


def test_1_one_request_gives_exactly_the_scripted_tokens():
    executor = ScriptedExecutor({"capital": CAPITAL["answer"]})
    record = run_requests([Request("capital", CAPITAL["ids"], max_tokens=16)], executor=executor)
    outcome = record.outcomes["capital"]
    assert outcome.tokens == CAPITAL["answer"]
    assert "Paris" in "".join(WORDS.get(t, "") for t in outcome.tokens)
    assert outcome.reason == "stop"


def test_1_a_single_request_is_not_delayed_to_fill_a_batch():
    record = run_requests([make_request("a", max_tokens=1)], max_num_seqs=64, max_num_batched_tokens=4096)
    assert record.steps[0].scheduled == [("a", 20)]
    assert record.outcomes["a"].reason == "length"


def test_2_sequential_requests_are_isolated():
    driver = SchedulerBuilder(executor=ScriptedExecutor({"a": [11, 12, 13], "b": [21, 22], "c": [31]})).build()
    for rid, n in (("a", 3), ("b", 2), ("c", 1)):
        driver.add(make_request(rid, max_tokens=n))
        driver.until_idle()
    assert [driver.outcomes[r].tokens for r in "abc"] == [[11, 12, 13], [21, 22], [31]]
    assert driver.steps.ends() == ["a", "b", "c"]
    assert driver.steps.of("a")[-1] < driver.steps.of("b")[0]
    driver.assert_nothing_leaked()


def test_3_twenty_requests_each_have_exactly_one_outcome_and_their_own_output():
    script = {f"r{i}": [5000 + 100 * i + k for k in range(8)] for i in range(20)}
    record = run_requests([make_request(rid, max_tokens=8) for rid in script], executor=ScriptedExecutor(script))
    record.steps.assert_one_end_each(script)
    assert {rid: o.tokens for rid, o in record.outcomes.items()} == script


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("k", [0, 1, 5])
def test_6_eos_at_k_stops_with_k_tokens_before_it(k, asynchronous):
    executor = ScriptedExecutor(eos_at={"a": k})
    record = run_requests([make_request("a", max_tokens=50)], executor=executor, async_scheduling=asynchronous)
    outcome = record.outcomes["a"]
    assert outcome.reason == "stop"
    assert len(outcome.tokens) == k + 1
    assert outcome.tokens[-1] == EOS_TOKEN
    assert EOS_TOKEN not in outcome.tokens[:-1]


def test_6_ignore_eos_runs_to_the_length():
    executor = ScriptedExecutor(eos_at={"a": 3})
    record = run_requests([make_request("a", max_tokens=9, ignore_eos=True)], executor=executor)
    outcome = record.outcomes["a"]
    assert outcome.reason == "length"
    assert len(outcome.tokens) == 9
    assert outcome.tokens[3] == EOS_TOKEN


def test_6_a_stop_token_is_named():
    executor = ScriptedExecutor({"a": [7, 8, 9, 10]})
    engine = Engine(engine_config(), executor)
    engine.add_request(make_request("a", max_tokens=4, stop_token_ids=[9]))
    outputs = [o for _ in range(5) for o in engine.step().outputs]
    assert [t for o in outputs for t in o.new_token_ids] == [7, 8, 9]
    assert outputs[-1].finish_reason == "stop"
    assert outputs[-1].stop_token_id == 9


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("n", [1, 2, 16, 33])
def test_7_exactly_max_tokens(n, asynchronous):
    record = run_requests([make_request("a", max_tokens=n)], async_scheduling=asynchronous)
    assert len(record.outcomes["a"].tokens) == n
    assert record.outcomes["a"].reason == "length"


def test_7_eos_on_the_last_token_counts_as_stop():
    executor = ScriptedExecutor(eos_at={"a": 4})
    record = run_requests([make_request("a", max_tokens=5)], executor=executor)
    assert len(record.outcomes["a"].tokens) == 5
    assert record.outcomes["a"].reason == "stop"


def test_7_max_tokens_is_clipped_to_the_model_length():
    record = run_requests([Request("a", prompt_tokens(1, 60), max_tokens=500)], max_model_len=64)
    assert len(record.outcomes["a"].tokens) == 4
    assert record.outcomes["a"].reason == "length"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_order_of_submission_does_not_change_an_output(asynchronous):
    requests = [make_request(f"r{i}", n=5 + 13 * i, max_tokens=3 + i) for i in range(9)]
    forward = run_requests(requests, async_scheduling=asynchronous, latency=QuadraticLatency())
    backward = run_requests(requests[::-1], async_scheduling=asynchronous, latency=QuadraticLatency())
    assert {r: o.tokens for r, o in forward.outcomes.items()} == {r: o.tokens for r, o in backward.outcomes.items()}
