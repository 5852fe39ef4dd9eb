"""The parts of the fidelity runner: schedules are reproducible and playable, a divergence is shrunk to its cause, and
planted bugs are found.
"""

import contextlib
import dataclasses
import importlib.util
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from kvsync_mockpod.engine import Engine
from kvsync_mockpod.engine.scheduler import Scheduler
from kvsync_mockpod.errors import ScenarioError
from kvsync_mockpod.scenario import parse_scenario
from kvsync_mockpod.stepdiff import compare_logs
from kvsync_mockpod.steps import play

FOLDER = Path(__file__).parents[2] / "test" / "fidelity"


def load(name):
    spec = importlib.util.spec_from_file_location(f"fidelity_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look the module up there
    with patch.object(sys, "path", [str(FOLDER), *sys.path]):
        spec.loader.exec_module(module)
    return module


generate = load("generate").generate
shrink = load("shrink").shrink
canary = load("canary")
compare = load("compare")
ORIGINALS = [(bug.owner, bug.attribute, bug.owner.__dict__[bug.attribute]) for bug in canary.CANARIES]


@pytest.mark.parametrize("seed", range(12))
def test_a_random_schedule_plays_to_its_end(seed):
    assert generate(seed) == generate(seed)
    assert generate(seed) != generate(seed + 1)
    scenario = parse_scenario(enumerate(generate(seed), 1))
    log = list(play(scenario))
    ended = [rid for record in log for rid, _reason in record.get("finished", [])]
    refused = [rid for record in log for rid in record.get("refused", [])]
    assert sorted(ended + refused) == sorted(r.request.request_id for r in scenario.requests)


def test_the_random_schedules_meet_every_rule():
    seen = set()
    for seed in range(30):
        rows = generate(seed)
        engine = rows[0]["engine"]
        seen |= {name for row in rows[1:] for name in row}
        seen |= {f"policy {engine['policy']}", f"async {engine['async_scheduling']}"}
        for record in play(parse_scenario(enumerate(rows, 1))):
            seen |= {name for name in ("preempted", "resumed", "refused", "finished") if record.get(name)}
            seen |= {event["type"] for event in record.get("events", [])}
            seen.add(record.get("control"))
    assert seen >= {
        *("preempted", "resumed", "refused", "finished", "control", "lora", "cache_salt", "priority", "eos_at"),
        *("ignore_eos", "stop_token_ids", "report_mode", "abort_at_step", "abort_during_step"),
        *("BlockStored", "BlockRemoved", "AllBlocksCleared", "reset_prefix_cache", "pause", "resume"),
        *("policy fcfs", "policy priority", "async True", "async False"),
    }


def test_shrinking_keeps_only_what_the_divergence_needs():
    rows = generate(3)
    asked = []

    def differs_at(candidate):
        asked.append(candidate)
        requests = {row["id"]: row for row in candidate if "id" in row}
        return 10_000 if "r2" in requests and "r5" in requests and requests["r5"]["max_tokens"] >= 2 else None

    assert differs_at(rows), "the seed has these requests"
    small = shrink(rows, differs_at, budget=1500)
    kept = [row for row in small if "id" in row]
    assert [row["id"] for row in kept] == ["r2", "r5"]
    assert kept[1]["max_tokens"] == 2
    assert all(set(row) == {"id", "arrival_step", "prompt", "max_tokens"} for row in kept)
    assert all(row["prompt"] == [] and row["arrival_step"] == 0 for row in kept)
    assert small[0]["engine"]["num_gpu_blocks"] == 4
    assert len(asked) <= 1501
    assert len({repr(candidate) for candidate in asked[1:]}) == len(asked[1:]), "no candidate is compared twice"


def test_what_comes_after_the_first_difference_goes_at_once():
    rows = generate(3)
    assert max(row.get("arrival_step", 0) for row in rows) > 3
    asked = []

    def differs_at(candidate):
        asked.append(candidate)
        return 3

    shrink(rows, differs_at, budget=2)
    assert asked[0] == rows
    assert asked[1] == [row for row in rows if row.get("arrival_step", row.get("step", 0)) <= 3]


def test_shrinking_asks_no_more_often_and_no_longer_than_allowed():
    asked = []

    def differs_at(candidate):
        asked.append(candidate)
        return 10_000

    shrink(generate(5), differs_at, budget=10)
    assert len(asked) == 10
    now = [0.0]

    def slowly(candidate):
        now[0] += 20.0
        return differs_at(candidate)

    shrink(generate(5), slowly, seconds=100.0, clock=lambda: now[0])
    assert len(asked) == 15


# --- planted bugs, with the unchanged engine in place of vLLM


class WithoutTheBug:
    """Compares the engine as it is now with the engine as it was imported."""

    def __init__(self):
        self.asked = 0

    def first_difference(self, rows):
        self.asked += 1
        with contextlib.ExitStack() as stack:
            for owner, attribute, original in ORIGINALS:
                stack.enter_context(patch.object(owner, attribute, original))
            expected = compare.mock_log(rows, "0.33.0")
        return compare_logs(expected, compare.mock_log(rows, "0.33.0"))

    def differs_at(self, rows):
        try:
            difference = self.first_difference(rows)
        except ScenarioError:
            return None
        return None if difference is None else difference.step


def schedules(count=60):
    return ((f"seed-{seed}", generate(seed)) for seed in range(count))


@pytest.mark.parametrize("bug", canary.CANARIES, ids=lambda bug: bug.name)
def test_random_schedules_meet_every_planted_bug(bug):
    comparison = WithoutTheBug()
    with bug.plant():
        assert any(comparison.first_difference(rows) for _, rows in schedules())
    assert comparison.first_difference(generate(0)) is None


@pytest.mark.parametrize("bug", canary.CANARIES, ids=lambda bug: bug.name)
def test_a_planted_bug_is_shrunk_to_its_cause(bug):
    comparison = WithoutTheBug()
    found = canary.hunt(bug, comparison, schedules(), shrink)
    requests = [row for row in found.small if "id" in row]
    assert 1 <= len(requests) <= bug.most_requests
    assert len(found.small) == 1 + len(requests)
    assert comparison.asked < 650
    assert found.difference.startswith("step ")


def test_a_missed_bug_is_an_error():
    harmless = dataclasses.replace(canary.CANARIES[0], instead=Scheduler._victim)
    with pytest.raises(canary.MissedError, match="victim: not found"):
        canary.hunt(harmless, WithoutTheBug(), schedules(3), shrink)
    with pytest.raises(canary.MissedError, match=r"finish: seed-\d+ was shrunk to \d+ requests, not 1"):
        canary.hunt(canary.CANARIES[3], WithoutTheBug(), schedules(), lambda rows, _differs_at: rows)


def test_a_mock_that_breaks_is_a_difference_and_one_that_refuses_is_no_schedule():
    rows = [{"engine": {}}, {"id": "a", "arrival_step": 0, "prompt": [{"prefix_id": 1, "n": 9}], "max_tokens": 2}]
    with patch.object(Scheduler, "schedule", side_effect=ZeroDivisionError("planted")):
        assert compare.mock_log(rows, "0.33.0")[-1]["scheduled"] == ["ZeroDivisionError: planted"]
    long = [rows[0], rows[1] | {"max_tokens": 50}]
    assert [r["step"] for r in compare.mock_log(long, "0.33.0", until=7)] == list(range(9)), "no further"
    with patch.object(Engine, "has_work", return_value=True), patch.object(compare, "MOST_STEPS", 100):
        last = compare.mock_log(rows, "0.33.0", until=2)[-1]
    assert last["scheduled"] == ["RuntimeError: still busy after 100 steps"], (
        "an engine that does not end counts as a difference"
    )
    with pytest.raises(ScenarioError, match="no LoRA slots"):
        compare.mock_log([rows[0], rows[1] | {"lora": "adapter"}], "0.33.0")
