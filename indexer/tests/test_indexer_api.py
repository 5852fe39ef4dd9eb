"""The types of the HTTP API: what they accept, what they send, and what importing them costs."""

import subprocess
import sys

import msgspec
import pytest

from kvsync_indexer.api import (
    AuditRequest,
    ErrorAnswer,
    ErrorDetail,
    MatchAnswer,
    MatchRequest,
    MatchRow,
    PredictionReport,
    PublishersAnswer,
)

HEAVY = {"aiohttp", "kubernetes", "pydantic", "starlette", "structlog", "uvicorn", "zmq"}


@pytest.mark.parametrize("module", ["kvsync_indexer", "kvsync_indexer.api"])
def test_importing_the_types_loads_nothing_heavy(module):
    script = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert not HEAVY & set(done.stdout.split())


def test_the_library_is_loaded_when_it_is_used():
    import kvsync_indexer

    assert kvsync_indexer.PrefixIndex.__module__ == "kvsync_indexer.library"
    with pytest.raises(AttributeError, match="no attribute 'NoSuchName'"):
        kvsync_indexer.NoSuchName  # noqa: B018


def test_a_request_is_sent_without_what_it_leaves_open():
    assert msgspec.json.encode(MatchRequest("m", token_ids=[1])) == b'{"model":"m","token_ids":[1]}'
    assert msgspec.json.encode(AuditRequest()) == b"{}"


@pytest.mark.parametrize("kind", [MatchRequest, AuditRequest, PredictionReport])
def test_a_request_with_an_unknown_field_is_refused(kind):
    with pytest.raises(msgspec.ValidationError, match="unknown field `polcy`"):
        msgspec.json.decode(b'{"polcy": 1}', type=kind)


def test_an_answer_of_a_newer_index_is_understood():
    row = MatchRow("p", "p", 0, 2, 32, {"GPU": 2}, "live", 0.5, False)
    newer = {**msgspec.to_builtins(MatchAnswer(16, 2, [row])), "invented_later": 1}
    assert msgspec.convert(newer, MatchAnswer).matches == [row]


def test_a_publisher_needs_a_name_and_a_state():
    answer = msgspec.json.decode(b'{"publishers": [{"name": "p", "state": "live", "new": 1}]}', type=PublishersAnswer)
    assert (answer.publishers[0].blocks, answer.publishers[0].ready) == (0, True)
    for row in (b"{}", b'{"name": "p"}', b'{"state": "live"}'):
        with pytest.raises(msgspec.ValidationError, match="missing required field"):
            msgspec.json.decode(b'{"publishers": [%s]}' % row, type=PublishersAnswer)


def test_the_form_of_an_error():
    assert msgspec.json.encode(ErrorAnswer(ErrorDetail("no"))) == b'{"error":{"message":"no"}}'
    assert msgspec.json.encode(ErrorAnswer(ErrorDetail("no", "x"))) == b'{"error":{"message":"no","field":"x"}}'
