"""Rules that differ between vLLM versions, each on the shortest schedule that shows the difference.

The schedules were shrunk by `test/fidelity` from random ones. The behaviour of the older version was read from the log
of vLLM 0.24.0's own engine core.
"""

import pytest

from kvsync_mockpod.engine import EngineConfig
from kvsync_mockpod.scenario import parse_scenario
from kvsync_mockpod.steps import play


def log(version, engine, *requests):
    rows = [{"engine": {"vllm_version": version, **engine}}]
    for rid, prompt, max_tokens, *more in requests:
        parts = [{"prefix_id": stream, "n": n} for stream, n in prompt]
        row = {"id": rid, "arrival_step": 0, "prompt": parts, "max_tokens": max_tokens}
        rows.append(row | (more[0] if more else {}))
    return list(play(parse_scenario(enumerate(rows, 1))))


@pytest.mark.parametrize(
    ("version", "order"),
    [
        ("0.17.0", ["r6", "r7"]),
        ("0.18.0", ["r7", "r6"]),
        ("0.24.0", ["r7", "r6"]),
        ("0.30.0", ["r7", "r6"]),
        ("0.31.0", ["r6", "r7"]),
    ],
)
def test_order_of_preempted_requests_and_those_skipped_for_lack_of_a_lora_slot(version, order):
    steps = log(
        version,
        {"num_gpu_blocks": 7, "max_model_len": 96, "max_num_batched_tokens": 362, "max_loras": 2},
        ("r5", [(9005, 15)], 3, {"lora": "adapter2"}),
        ("r6", [(101, 15), (281477024135463, 16), (5006, 32)], 3, {"lora": "adapter1"}),
        ("r7", [(9007, 1)], 1, {"lora": "adapter0"}),
    )
    assert steps[2]["preempted"] == ["r6"]
    assert [rid for rid, _tokens in steps[3]["scheduled"]] == order


@pytest.mark.parametrize(("version", "at"), [("0.24.0", 1), ("0.32.0", 1), ("0.33.0", 2)])
def test_lora_slot_of_a_request_whose_last_token_is_in_flight(version, at):
    steps = log(
        version,
        {"block_size": 8, "num_gpu_blocks": 4, "max_model_len": 24, "async_scheduling": True, "max_loras": 1},
        ("r3", [(9003, 1)], 1, {"lora": "adapter0"}),
        ("r4", [(9004, 1)], 1, {"lora": "adapter1"}),
    )
    assert steps[0]["scheduled"] == [["r3", 1]]
    assert steps[1]["finished"] == [["r3", "length"]]
    assert [step["step"] for step in steps if ["r4", 1] in step["scheduled"]] == [at]


@pytest.mark.parametrize(("version", "events"), [("0.24.0", 1), ("0.25.0", 1), ("0.26.0", 2)])
def test_hits_are_reported_from_the_version_that_has_the_option(version, events):
    steps = log(
        version,
        {"block_size": 4, "num_gpu_blocks": 4, "max_model_len": 12, "max_num_seqs": 2, "max_num_batched_tokens": 48},
        ("r16", [(101, 4)], 1),
        ("r19", [(101, 5)], 1, {"report_mode": "full"}),
    )
    assert steps[0]["scheduled"] == [["r16", 4], ["r19", 1]]
    assert [event["type"] for event in steps[0]["events"]] == ["BlockStored"] * events


@pytest.mark.parametrize(
    ("rule", "before", "since"),
    [
        ("is_async", "0.13.0", "0.14.0"),
        ("skipped_first", "0.17.0", "0.18.0"),
        ("reserves_full", "0.18.0", "0.19.0"),
        ("blanks_first", "0.23.0", "0.24.0"),
        ("reports_hits", "0.25.0", "0.26.0"),
        ("lone_request_unthrottled", "0.30.0", "0.31.0"),
        ("loras_of_running", "0.32.0", "0.33.0"),
    ],
)
def test_a_rule_follows_the_version(rule, before, since):
    assert getattr(EngineConfig(vllm_version=before), rule) is False
    assert getattr(EngineConfig(vllm_version=since), rule) is True
    assert EngineConfig(vllm_version="0.31.0").skipped_first is False
    assert EngineConfig(vllm_version="0.33.0", async_scheduling=False).is_async is False


def test_the_watermark_applies_from_the_version_that_has_the_option():
    assert EngineConfig(vllm_version="0.23.0", num_gpu_blocks=4096, watermark=0.5).margin_blocks == 0
    assert EngineConfig(vllm_version="0.24.0", num_gpu_blocks=4096, watermark=0.5).margin_blocks == 2048
