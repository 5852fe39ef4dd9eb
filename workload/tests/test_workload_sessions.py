"""Closed loops in traces: sessions of Mooncake traces, conversations in Weka's format, and what cannot be read."""

import json

import pytest

from kvsync_workload.errors import TraceError
from kvsync_workload.reading import read_workload
from kvsync_workload.trace import FIRST_PRIVATE_ID


def write_lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def turn(blocks=1, **fields):
    return {"input_length": 512 * blocks, "output_length": 4, "hash_ids": list(range(blocks)), **fields}


def waits(trace):
    return [(request.waits_for, request.think_s) for request in trace.requests]


def test_turns_of_a_session_wait_for_each_other(tmp_path):
    path = write_lines(
        tmp_path / "t.jsonl",
        turn(1, timestamp=100, session_id="a"),
        turn(1, timestamp=150),
        turn(2, timestamp=900, session_id="a"),
        turn(3, session_id="a", delay=250),
        turn(1, timestamp=300, session_id=7),
    )
    trace = read_workload(path)
    assert [request.arrival_s for request in trace.requests] == [0.0, 0.05, 0.2, 0.8, 1.05]
    assert waits(trace) == [((), 0.0), ((), 0.0), ((), 0.0), ((0,), 0.8), ((3,), 0.25)]


def test_other_names_of_the_fields(tmp_path):
    row = {"created_time": 0, "input_tokens": 512, "output_tokens": 3, "hash_ids": [5], "session_id": "s"}
    later = {"delay_ms": 40, "input_tokens": 512, "output_tokens": 3, "hash_ids": [5], "session_id": "s"}
    trace = read_workload(write_lines(tmp_path / "t.jsonl", row, later))
    assert waits(trace) == [((), 0.0), ((0,), 0.04)]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (turn(1), "timestamp: is missing"),
        (turn(1, session_id="a", delay=-1), "delay = -1"),
        (turn(1, timestamp=-5, session_id="a"), "timestamp = -5"),
        (turn(1, timestamp="x"), "timestamp"),
    ],
)
def test_a_line_that_is_no_turn(tmp_path, row, words):
    with pytest.raises(TraceError, match=r"t\.jsonl:1: .*") as refused:
        read_workload(write_lines(tmp_path / "t.jsonl", row))
    assert words in str(refused.value)


def call(t, tokens, **fields):
    return {"t": t, "type": "n", "in": tokens, "out": 9, "hash_ids": list(range(-(-tokens // 64))), **fields}


def conversation(*requests, **fields):
    return {"id": "c", "block_size": 64, "hash_id_scope": "local", "requests": list(requests), **fields}


def write_conversation(path, *requests, **fields):
    path.write_text(json.dumps(conversation(*requests, **fields)))
    return path


def test_a_conversation_is_a_closed_loop(tmp_path):
    path = write_conversation(
        tmp_path / "c.json", call(0, 1024), call(7, 1100, api_time=3.0), call(20, 1600, think_time=2.5)
    )
    trace = read_workload(path)
    assert waits(trace) == [((), 0.0), ((0,), 7.0), ((1,), 2.5)]
    assert [request.output_tokens for request in trace.requests] == [9, 9, 9]


def test_blocks_of_64_tokens_become_blocks_of_512(tmp_path):
    first, second = read_workload(write_conversation(tmp_path / "c.json", call(0, 1030), call(1, 1600))).requests
    assert first.hash_ids[:2] == second.hash_ids[:2]
    assert len(first.hash_ids) == 3
    assert len(second.hash_ids) == 4
    assert first.hash_ids[2] >= FIRST_PRIVATE_ID
    assert second.hash_ids[2] < FIRST_PRIVATE_ID
    assert len({*first.hash_ids, *second.hash_ids}) == 5


def test_ids_are_those_of_one_file_unless_it_says_otherwise(tmp_path):
    for scope, shared in (("local", False), ("global", True)):
        folder = tmp_path / scope
        folder.mkdir()
        for name in ("a.json", "b.json"):
            write_conversation(folder / name, call(0, 512), hash_id_scope=scope)
        one, other = read_workload(folder).requests
        assert (one.hash_ids == other.hash_ids) is shared


def test_the_next_turn_waits_for_subagents(tmp_path):
    def agent(t, *requests, **fields):
        return {"t": t, "type": "subagent", "agent_id": "a", "requests": list(requests), **fields}

    path = write_conversation(
        tmp_path / "c.json",
        call(0, 512),
        agent(2, call(0, 600), call(1, 700)),
        agent(2, call(0, 800)),
        agent(2, call(0, 900), status="async_launched"),
        call(9, 1024),
    )
    trace = read_workload(path)
    by_tokens = {request.input_tokens: place for place, request in enumerate(trace.requests)}
    first = (by_tokens[512],)
    for tokens, expected in ((600, first), (700, (by_tokens[600],)), (800, first), (900, first)):
        assert trace.requests[by_tokens[tokens]].waits_for == expected
    assert set(trace.requests[by_tokens[1024]].waits_for) == {by_tokens[512], by_tokens[700], by_tokens[800]}
    assert trace.requests[by_tokens[600]].arrival_s == 2.0


def test_times_of_subagents_may_count_from_the_beginning(tmp_path):
    nested = {"t": 50, "type": "subagent", "agent_id": "a", "requests": [call(51, 600)]}
    trace = read_workload(write_conversation(tmp_path / "c.json", call(0, 512), nested))
    assert [request.arrival_s for request in trace.requests] == [0.0, 51.0]


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"block_size": 48}, "block_size = 48"), ({"requests": [call(0, 0)]}, "in = 0"), ({"requests": 5}, "requests")],
)
def test_a_conversation_that_cannot_be_read(tmp_path, fields, words):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(conversation(call(0, 512)) | fields))
    with pytest.raises(TraceError, match=r"c\.json") as refused:
        read_workload(path)
    assert words in str(refused.value)


def test_a_limit_on_requests_spans_files(tmp_path):
    for name in ("a.json", "b.json"):
        write_conversation(tmp_path / name, call(0, 512), call(1, 1024))
    assert len(read_workload(tmp_path, 3).requests) == 3
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(TraceError, match=r"holds no \*\.json file"):
        read_workload(empty)
