"""Integration tests 1, 2, 3, 6 and 7: one request, many requests, and how they end."""

import pytest
from mockpod_engine_kit import EOS, Run, TableExecutor, config, request, run, scheduled, tokens

from kvsync_mockpod.engine import Engine, Request
from kvsync_mockpod.engine.latency import QuadraticLatency

CAPITAL = {"ids": [464, 3139, 286, 4881, 318], "answer": [6342, 13, EOS]}
WORDS = {6342: " Paris", 13: "."}


def test_1_one_request_gives_exactly_the_scripted_tokens():
    executor = TableExecutor({"capital": CAPITAL["answer"]})
    record = run([Request("capital", CAPITAL["ids"], max_tokens=16)], executor=executor)
    outcome = record.outcomes["capital"]
    assert outcome.tokens == CAPITAL["answer"]
    assert "Paris" in "".join(WORDS.get(t, "") for t in outcome.tokens)
    assert outcome.reason == "stop"


def test_1_a_single_request_is_not_delayed_to_fill_a_batch():
    record = run([request("a", max_tokens=1)], max_num_seqs=64, max_num_batched_tokens=4096)
    assert record.steps[0].scheduled == [("a", 20)]
    assert record.outcomes["a"].reason == "length"


def test_2_sequential_requests_are_isolated():
    engine = Engine(config(), TableExecutor({"a": [11, 12, 13], "b": [21, 22], "c": [31]}))
    driver = Run(engine)
    for rid, n in (("a", 3), ("b", 2), ("c", 1)):
        driver.add(request(rid, max_tokens=n))
        driver.until_idle()
    assert [driver.outcomes[r].tokens for r in "abc"] == [[11, 12, 13], [21, 22], [31]]
    ended = [rid for step in driver.steps for rid, _reason in step.finished]
    assert ended == ["a", "b", "c"]
    assert scheduled(driver.steps, "a")[-1] < scheduled(driver.steps, "b")[0]
    assert engine.statistics().free_blocks == engine.statistics().total_blocks


def test_3_twenty_requests_each_have_exactly_one_outcome_and_their_own_output():
    script = {f"r{i}": [5000 + 100 * i + k for k in range(8)] for i in range(20)}
    record = run([request(rid, max_tokens=8) for rid in script], executor=TableExecutor(script))
    ends = [rid for step in record.steps for rid, _reason in step.finished]
    assert sorted(ends) == sorted(script)
    assert {rid: o.tokens for rid, o in record.outcomes.items()} == script


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("k", [0, 1, 5])
def test_6_eos_at_k_stops_with_k_tokens_before_it(k, asynchronous):
    executor = TableExecutor(eos_at={"a": k})
    record = run([request("a", max_tokens=50)], executor=executor, async_scheduling=asynchronous)
    outcome = record.outcomes["a"]
    assert outcome.reason == "stop"
    assert len(outcome.tokens) == k + 1
    assert outcome.tokens[-1] == EOS
    assert EOS not in outcome.tokens[:-1]


def test_6_ignore_eos_runs_to_the_length():
    executor = TableExecutor(eos_at={"a": 3})
    record = run([request("a", max_tokens=9, ignore_eos=True)], executor=executor)
    outcome = record.outcomes["a"]
    assert outcome.reason == "length"
    assert len(outcome.tokens) == 9
    assert outcome.tokens[3] == EOS


def test_6_a_stop_token_is_named():
    executor = TableExecutor({"a": [7, 8, 9, 10]})
    engine = Engine(config(), executor)
    engine.add_request(request("a", max_tokens=4, stop_token_ids=[9]))
    outputs = [o for _ in range(5) for o in engine.step().outputs]
    assert [t for o in outputs for t in o.new_token_ids] == [7, 8, 9]
    assert outputs[-1].finish_reason == "stop"
    assert outputs[-1].stop_token_id == 9


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("n", [1, 2, 16, 33])
def test_7_exactly_max_tokens(n, asynchronous):
    record = run([request("a", max_tokens=n)], async_scheduling=asynchronous)
    assert len(record.outcomes["a"].tokens) == n
    assert record.outcomes["a"].reason == "length"


def test_7_eos_on_the_last_token_counts_as_stop():
    executor = TableExecutor(eos_at={"a": 4})
    record = run([request("a", max_tokens=5)], executor=executor)
    assert len(record.outcomes["a"].tokens) == 5
    assert record.outcomes["a"].reason == "stop"


def test_7_max_tokens_is_clipped_to_the_model_length():
    record = run([Request("a", tokens(1, 60), max_tokens=500)], max_model_len=64)
    assert len(record.outcomes["a"].tokens) == 4
    assert record.outcomes["a"].reason == "length"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_order_of_submission_does_not_change_an_output(asynchronous):
    requests = [request(f"r{i}", n=5 + 13 * i, max_tokens=3 + i) for i in range(9)]
    forward = run(requests, async_scheduling=asynchronous, latency=QuadraticLatency())
    backward = run(requests[::-1], async_scheduling=asynchronous, latency=QuadraticLatency())
    assert {r: o.tokens for r, o in forward.outcomes.items()} == {r: o.tokens for r, o in backward.outcomes.items()}
