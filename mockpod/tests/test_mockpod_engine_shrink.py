"""The fidelity runner's own parts: schedules are reproducible and playable, a divergence is shrunk to its cause."""

import importlib.util
from pathlib import Path

import pytest

from kvsync_mockpod.scripted import parse_scenario
from kvsync_mockpod.steps import play

FOLDER = Path(__file__).parents[2] / "test" / "fidelity"


def load(name):
    spec = importlib.util.spec_from_file_location(f"fidelity_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load("generate").generate
shrink = load("shrink").shrink


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

    def diverges(candidate):
        asked.append(candidate)
        requests = {row["id"]: row for row in candidate if "id" in row}
        return "r2" in requests and "r5" in requests and requests["r5"]["max_tokens"] >= 2

    assert diverges(rows), "the seed has these requests"
    small = shrink(rows, diverges, step=10_000, budget=1500)
    kept = [row for row in small if "id" in row]
    assert [row["id"] for row in kept] == ["r2", "r5"]
    assert kept[1]["max_tokens"] == 2
    assert all(set(row) == {"id", "arrival_step", "prompt", "max_tokens"} for row in kept)
    assert all(row["prompt"] == [] and row["arrival_step"] == 0 for row in kept)
    assert len(asked) <= 1502


def test_shrinking_asks_no_more_often_than_allowed():
    asked = []

    def diverges(candidate):
        asked.append(candidate)
        return True

    shrink(generate(5), diverges, step=10_000, budget=30)
    assert len(asked) == 30
