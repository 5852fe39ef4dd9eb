"""Synthetic workloads: shared prefixes, growing sessions, and descriptions that are refused."""

import pytest

from kvsync_workload.errors import SyntheticError
from kvsync_workload.synthetic import Synthetic, make_trace, read_synthetic


def test_sessions_share_prefixes_and_grow():
    workload = Synthetic(requests=400, prefixes={"count": 5, "tokens": 2048, "zipf": 1.2}, turns={"mean": 3})
    trace = make_trace(workload, 7)
    assert len(trace) == 400
    assert trace == make_trace(workload, 7)
    assert trace != make_trace(workload, 8)
    assert trace[0].arrival_s == 0.0
    assert [request.arrival_s for request in trace] == sorted(request.arrival_s for request in trace)
    assert all(len(request.hash_ids) == -(-request.input_tokens // 512) for request in trace)
    starts = [request.hash_ids[:4] for request in trace]
    counts = sorted((starts.count(start) for start in set(starts)), reverse=True)
    assert len(counts) == 5
    assert counts[0] > 2 * counts[-1]
    grown = [request for request in trace if len(request.hash_ids) > 8]
    assert any(request.hash_ids[:6] == other.hash_ids[:6] for request in grown for other in trace if other != request)


def test_a_description_is_read_and_may_be_empty(tmp_path):
    path = tmp_path / "w.yaml"
    path.write_text("requests: 7\nprefixes: {zipf: 0}\n")
    assert read_synthetic(path) == Synthetic(requests=7, prefixes={"zipf": 0})
    path.write_text("")
    assert read_synthetic(path) == Synthetic()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("requests: 0", "requests = 0"),
        ("prefixs: {}", "unknown field prefixs; did you mean prefixes?"),
        ("turns: {mena: 3}", "unknown field turns.mena; did you mean mean?"),
        ("[", "line 1"),
        ("[]", "the file"),
    ],
)
def test_a_bad_description_is_one_clear_error(tmp_path, text, says):
    path = tmp_path / "w.yaml"
    path.write_text(text)
    with pytest.raises(SyntheticError) as caught:
        read_synthetic(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_description_is_one_clear_error(tmp_path):
    with pytest.raises(SyntheticError, match="No such file"):
        read_synthetic(tmp_path / "none.yaml")
