"""Request logs become traces that the reader takes, whatever their order and however they write times."""

import json

import pytest

from kvsync_workload.errors import RequestLogError
from kvsync_workload.request_log import convert_log
from kvsync_workload.trace import read_trace

SYSTEM = "You are a helpful assistant. " * 60


def encode(text):
    return [ord(character) for character in text]


@pytest.fixture
def convert(tmp_path):
    def convert(*records):
        log, trace = tmp_path / "log.jsonl", tmp_path / "trace.jsonl"
        log.write_text("\n".join(map(json.dumps, records)) + "\n\n")
        trace.write_text("\n".join(convert_log(log, encode)))
        return read_trace(trace)

    return convert


def test_every_form_of_a_request_is_converted(convert):
    trace = convert(
        {"timestamp": 1700000000, "body": {"model": "m", "prompt": SYSTEM + "one", "max_tokens": 9}},
        {
            "created_at": "2023-11-14T22:13:22+00:00",
            "request": {"model": "m", "prompt": SYSTEM + "two"},
            "response": {"usage": {"completion_tokens": 5}},
        },
        {"time": 1700000003000, "model": "m", "messages": [{"role": "user", "content": [{"text": "hi"}]}]},
        {"created": 1700000004, "model": "m", "cache_salt": "s", "prompt": SYSTEM + "one"},
        {"created": 1700000005, "prompt": list(range(1024)), "max_completion_tokens": 0},
    )
    first, second, third, salted, ids = trace.requests
    assert [request.arrival_s for request in trace.requests] == [0, 2, 3, 4, 5]
    assert [request.output_tokens for request in trace.requests] == [9, 5, 16, 16, 1]
    assert len(first.hash_ids) > 2
    assert second.hash_ids[:-1] == first.hash_ids[:-1]
    assert second.hash_ids[-1] != first.hash_ids[-1]
    assert third.input_tokens == len("<|im_start|>user\nhi<|im_end|>\n")
    assert set(salted.hash_ids).isdisjoint(first.hash_ids)
    assert (ids.input_tokens, len(ids.hash_ids)) == (1024, 2)


def test_a_log_in_order_of_ends_is_put_in_order_of_starts(convert):
    trace = convert({"created": 1005, "prompt": "late"}, {"created": 1000, "prompt": "early on"})
    assert [(request.arrival_s, request.input_tokens) for request in trace.requests] == [(0.0, 8), (5.0, 4)]
    assert trace.reordered == 0, "the trace that was written is in order"


def test_a_time_without_a_zone_is_utc(convert):
    trace = convert(
        {"created": "1970-01-02T00:00:00+00:00", "prompt": "a"}, {"created": "1970-01-02T00:00:03", "prompt": "b"}
    )
    assert [request.arrival_s for request in trace.requests] == [0.0, 3.0]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("{", "truncated"),
        ("[]", "a JSON object is needed"),
        ('{"prompt": "x"}', "timestamp: is missing"),
        ('{"created": 1, "prompt": ""}', "the prompt is empty"),
        ('{"created": 1}', "prompt: text, token ids or messages are needed"),
        ('{"created": 1, "messages": ["x"]}', "messages: objects with role and content"),
        ('{"created": "yesterday", "prompt": "x"}', "created = 'yesterday'"),
        ('{"created": 1, "prompt": [1, -1]}', "prompt: token ids must be from 0"),
        ('{"created": 1, "prompt": [1%s]}' % ("0" * 30), "prompt: "),
        ('{"created": 1%s, "prompt": "x"}' % ("0" * 400), ""),
    ],
)
def test_a_bad_line_is_one_clear_error(tmp_path, bad, says):
    path = tmp_path / "log.jsonl"
    path.write_text('{"created": 1, "prompt": "x"}\n' + bad + "\n")
    with pytest.raises(RequestLogError) as caught:
        convert_log(path, encode)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_log_is_one_clear_error(tmp_path):
    with pytest.raises(RequestLogError, match="No such file"):
        convert_log(tmp_path / "none.jsonl", encode)
