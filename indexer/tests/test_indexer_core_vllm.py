"""The cores against recorded histories of vLLM's KV cache manager with hybrid groups (`test/fidelity/hybrid.py`)."""

import gzip
import json
import sys
from pathlib import Path

import pytest
from index_core_helpers import KINDS

FOLDER = Path(__file__).parents[2] / "test" / "fidelity"
RECORDED = sorted((FOLDER / "data" / "hybrid").glob("*.jsonl.gz"))


@pytest.fixture
def check(monkeypatch):
    """`check` of `hybrid.py`."""
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("hybrid", "environment"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    from hybrid import check

    return check


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_no_answer_is_longer_than_what_vllm_hits(check, path, kind):
    histories = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    hits = sum(hit > 0 for history in histories for step in history["steps"] for hit in step["hits"])
    wrong, answers = check(histories, kind)
    assert wrong == []
    assert answers > hits > answers / 2
