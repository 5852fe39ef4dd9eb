"""Reading traces: the order of requests, lengths, block ids, and lines that are not requests."""

import json

import pytest

from kvsync_workload.errors import TraceError
from kvsync_workload.trace import FIRST_PRIVATE_ID, MAX_HASH_ID, read_trace


def line(**values):
    return json.dumps({"timestamp": 5, "input_length": 700, "output_length": 3, "hash_ids": [1, 2]} | values)


@pytest.fixture
def read(tmp_path):
    def read(*lines, limit=None):
        path = tmp_path / "trace.jsonl"
        path.write_text("\n".join(lines) + "\n")
        return read_trace(path, limit)

    return read


def test_requests_out_of_time_order_are_sorted_and_counted(read):
    trace = read(
        line(timestamp=3000, hash_ids=[1, 1]),
        line(timestamp=1000, hash_ids=[2, 2]),
        "",
        line(timestamp=3000, hash_ids=[3, 3]),
        line(timestamp=2500, hash_ids=[4, 4]),
    )
    assert [(request.arrival_s, request.hash_ids[0]) for request in trace.requests] == [
        (0.0, 2),
        (1.5, 4),
        (2.0, 1),
        (2.0, 3),
    ]
    assert trace.reordered == 2


def test_a_trace_in_order_is_left_alone_and_begins_at_zero(read):
    trace = read(line(timestamp=5), line(timestamp=5), line(timestamp=9))
    assert [request.arrival_s for request in trace.requests] == [0.0, 0.0, 0.004]
    assert trace.reordered == 0


def test_a_limit_takes_the_first_requests_of_the_file_and_reads_no_further(read):
    trace = read(line(timestamp=7), line(timestamp=6), "{", limit=2)
    assert len(trace.requests) == 2
    assert trace.reordered == 1


def test_an_output_of_no_tokens_counts_as_one(read):
    assert [request.output_tokens for request in read(line(output_length=0), line(output_length=1)).requests] == [1, 1]


def test_ids_of_full_blocks_only_leave_the_rest_to_the_request_alone(read):
    partial = {"input_length": 700, "hash_ids": [1]}
    short = {"input_length": 5, "hash_ids": []}
    first, second, third = read(line(**partial), line(**partial), line(**short)).requests
    assert first.hash_ids[0] == second.hash_ids[0] == 1
    own = {first.hash_ids[1], second.hash_ids[1], third.hash_ids[0]}
    assert len(own) == 3
    assert min(own) >= FIRST_PRIVATE_ID > MAX_HASH_ID


def test_ids_of_64_bits_keep_their_identity(read):
    ids = [2**32 + 1, MAX_HASH_ID]
    assert read(line(hash_ids=ids)).requests[0].hash_ids == tuple(ids)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("{", "truncated"),
        ("[]", "object"),
        ('{"timestamp": 1, "input_length": 5, "output_length": 1}', "hash_ids"),
        (line(input_length="x"), "input_length"),
        (line(input_length=0, hash_ids=[]), "input_length = 0: allowed is 1 to"),
        (line(input_length=2**24 + 1), "input_length = 16777217"),
        (line(output_length=-1), "output_length = -1: allowed is 0 to"),
        (line(timestamp=-1), "timestamp = -1"),
        (line(hash_ids=[1.5, 2]), "hash_ids[0]"),
        (line(hash_ids=[1, -2]), "hash_ids: every id must be from 0 to 18446744073709551615"),
        (line(hash_ids=[1, MAX_HASH_ID + 1]), "hash_ids"),
        (line(hash_ids=[]), "input_length = 700 needs 2 hash_ids, one per 512 tokens, not 0"),
        (line(hash_ids=[1, 2, 3]), "needs 2 hash_ids, one per 512 tokens, not 3"),
        (line(input_length=1024, hash_ids=[1]), "input_length = 1024 needs 2 hash_ids"),
    ],
)
def test_a_bad_line_is_one_clear_error(read, bad, says):
    with pytest.raises(TraceError) as caught:
        read(line(), "", bad)
    assert ":3: " in str(caught.value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_empty_trace_is_one_clear_error(tmp_path, read):
    with pytest.raises(TraceError, match=r"none\.jsonl: No such file"):
        read_trace(tmp_path / "none.jsonl")
    with pytest.raises(TraceError, match="holds no request"):
        read("")
