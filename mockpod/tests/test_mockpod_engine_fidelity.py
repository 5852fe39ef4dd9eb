"""The stored scenarios: the engine gives the same step logs as vLLM 0.33.0's own engine core."""

import copy
import io
import json
from pathlib import Path

import pytest

from kvsync_mockpod.errors import ScenarioError
from kvsync_mockpod.stepdiff import compare_logs, read_log
from kvsync_mockpod.steps import run_steps

DATA = Path(__file__).parents[2] / "test" / "fidelity" / "data"
NAMES = sorted(p.name.removesuffix(".jsonl.gz") for p in DATA.glob("*.jsonl.gz") if ".vllm-" not in p.name)


def vllm_log(name):
    return list(read_log(DATA / f"{name}.vllm-0.33.0.jsonl.gz"))


def mock_log(path):
    out = io.StringIO()
    lines = run_steps(path, out)
    records = [json.loads(line) for line in out.getvalue().splitlines()]
    assert len(records) == lines
    return records


def test_all_scenarios_are_here():
    assert len(NAMES) == 18


@pytest.mark.parametrize("name", NAMES)
def test_engine_equals_vllm(name):
    expected = vllm_log(name)
    assert len(expected) > 10
    difference = compare_logs(expected, mock_log(DATA / f"{name}.jsonl.gz"))
    assert difference is None, str(difference)


def test_two_runs_give_the_same_bytes():
    first, second = io.StringIO(), io.StringIO()
    run_steps(DATA / "16_async_preemption.jsonl.gz", first)
    run_steps(DATA / "16_async_preemption.jsonl.gz", second)
    assert first.getvalue() == second.getvalue()


def _drop_event(log):
    next(r for r in log if r["events"])["events"].pop()


def _swap_events(log):
    events = next(r for r in log if len(r["events"]) > 1 and r["events"][0] != r["events"][1])["events"]
    events[0], events[1] = events[1], events[0]


def _other_hash(log):
    next(r for r in log if r["events"])["events"][0]["block_hashes"][0] ^= 1


def _other_parent(log):
    event = next(e for r in log for e in r["events"] if e.get("parent_block_hash"))
    event["parent_block_hash"] ^= 1


def _other_tokens(log):
    next(e for r in log for e in r["events"] if "tokens_crc" in e)["tokens_crc"] ^= 1


def _one_token_more(log):
    next(r for r in log if r["scheduled"])["scheduled"][-1][1] += 1


def _reorder(log):
    next(r for r in log if len(r["scheduled"]) > 1)["scheduled"].reverse()


def _lose_preemption(log):
    next(r for r in log if r["preempted"])["preempted"].pop()


def _less_hit(log):
    hits = next(r["hits"] for r in log if any(r.get("hits", {}).values()))
    hits[next(k for k, v in hits.items() if v)] -= 16


def _late_finish(log):
    at = next(i for i, r in enumerate(log) if r["finished"])
    log[at + 1].setdefault("finished", []).append(log[at]["finished"].pop())


def _other_reason(log):
    next(r for r in log if r["finished"])["finished"][0][1] = "stop"


def _free(log):
    log[3]["free"] += 1


def _lose_step(log):
    del log[5]


MUTATIONS = [
    _drop_event,
    _swap_events,
    _other_hash,
    _other_parent,
    _other_tokens,
    _one_token_more,
    _reorder,
    _lose_preemption,
    _less_hit,
    _late_finish,
    _other_reason,
    _free,
    _lose_step,
]


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda f: f.__name__.strip("_"))
def test_the_comparer_finds_every_mutation(mutate):
    log = vllm_log("03_preemption")
    changed = copy.deepcopy(log)
    mutate(changed)
    assert compare_logs(log, log) is None
    difference = compare_logs(log, changed)
    assert difference is not None
    assert str(difference).startswith(f"step {difference.step}: {difference.field}: expected ")


def test_hashes_may_be_signed_or_hexadecimal():
    log = vllm_log("03_preemption")
    changed = copy.deepcopy(log)
    for record in changed:
        for event in record["events"]:
            event["block_hashes"] = [h - (1 << 64) if h >> 63 else f"{h:x}" for h in event.get("block_hashes", [])]
    assert compare_logs(log, changed) is None


ENGINE = '{"engine":{"num_gpu_blocks":64,"max_model_len":512}}'
REQUEST = '{"id":"a","arrival_step":0,"prompt":[{"prefix_id":1,"n":4}],"max_tokens":2}'


@pytest.mark.parametrize(
    ("lines", "line", "says"),
    [
        ([ENGINE, "{oops"], 2, "not JSON"),
        ([ENGINE, "[1]"], 2, "must be a JSON object"),
        (['{"engine":{"num_gpu_block":64}}'], 1, "did you mean 'num_gpu_blocks'?"),
        (['{"engine":{"num_gpu_blocks":8}}'], 1, "max_model_len 2032 needs 127 blocks"),
        (['{"engine":{"block_size":0}}'], 1, "block_size 0"),
        (['{"engine":{"step_s":0}}'], 1, "step_s must be a positive number"),
        ([ENGINE, REQUEST, REQUEST], 3, "id must be a new"),
        ([ENGINE, '{"arrival_step":0,"prompt":[],"max_tokens":1}'], 2, "'id' is missing"),
        ([ENGINE, REQUEST.replace('"max_tokens":2', '"max_tokens":0')], 2, "max_tokens must be a whole number"),
        ([ENGINE, REQUEST.replace('"max_tokens":2', '"max_tokens":"2"')], 2, "max_tokens must be a whole number"),
        ([ENGINE, REQUEST.replace('"arrival_step":0', '"arrival":0')], 2, "unknown request field 'arrival'"),
        ([ENGINE, REQUEST.replace('"n":4', '"n":-4')], 2, "n must be a whole number"),
        ([ENGINE, '{"control":"sleep","step":1}'], 2, "unknown control 'sleep'"),
        ([ENGINE, '{"control":"reset_prefix_cache"}'], 2, "'step' is missing"),
    ],
)
def test_a_bad_line_is_one_clear_error(tmp_path, lines, line, says):
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ScenarioError) as caught:
        run_steps(path, io.StringIO())
    message = str(caught.value)
    assert message.startswith(f"{path}:{line}: ")
    assert says in message
    assert "\n" not in message


def test_an_unreadable_file_is_one_clear_error(tmp_path):
    with pytest.raises(ScenarioError, match=r"missing\.jsonl: cannot be read: No such file"):
        run_steps(tmp_path / "missing.jsonl", io.StringIO())
    broken = tmp_path / "broken.jsonl.gz"
    broken.write_bytes(b"no gzip at all")
    with pytest.raises(ScenarioError, match="cannot be read"):
        run_steps(broken, io.StringIO())
