"""Data-parallel flags: which ranks a pod has, on which ports, and which of them a client may name."""

import pytest
from mockpod_helpers import start_pod

from kvsync_mockpod.config import build_config
from kvsync_mockpod.config.flags import normalize_arguments
from kvsync_mockpod.errors import ConfigError
from kvsync_mockpod.publish import plan_endpoints

EVENTS = {"enable_kv_cache_events": True, "endpoint": "tcp://*:6000", "replay_endpoint": "tcp://*:7000"}


def plan(**settings):
    config = build_config({f"data_parallel_{name}": value for name, value in settings.items()})
    return list(config.rank_plan.ranks), config.rank_plan.named


@pytest.mark.parametrize(
    ("settings", "ranks", "named"),
    [
        ({}, [0], 1),
        ({"size": 3}, [0, 1, 2], 3),
        # external load balancing: one rank
        ({"size": 4, "rank": 3}, [3], 1),
        ({"size": 4, "rank": 0}, [0], 1),
        ({"size": 4, "rank": 2, "size_local": 1, "external_lb": True}, [2], 1),
        ({"rank": 3}, [3], 1),
        # hybrid load balancing: the ranks of one node, named by their place on it
        ({"size": 4, "size_local": 2, "start_rank": 2}, [2, 3], 2),
        ({"size": 4, "size_local": 2, "start_rank": 0}, [0, 1], 2),
        ({"size": 4, "size_local": 2, "hybrid_lb": True}, [0, 1], 2),
        ({"size": 4, "size_local": 1, "start_rank": 3, "hybrid_lb": True}, [3], 1),
        # internal load balancing over several nodes: ranks are named by their global number
        ({"size": 4, "size_local": 2}, [0, 1], 4),
        ({"size": 2, "size_local": 2, "start_rank": 0}, [0, 1], 2),
        # as in vLLM, a start rank without a local size has no effect
        ({"size": 2, "start_rank": 1}, [0, 1], 2),
    ],
)
def test_the_ranks_of_a_pod(settings, ranks, named):
    assert plan(**settings) == (ranks, named)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"hybrid_lb": True, "external_lb": True, "size": 2}, "cannot be enabled together"),
        ({"external_lb": True, "size": 2}, "external_lb requires data_parallel_rank"),
        ({"rank": 1, "size": 2, "size_local": 2}, "an external data-parallel rank requires 1"),
        ({"hybrid_lb": True, "size": 4}, "hybrid_lb requires data_parallel_size_local"),
        ({"size": 2, "size_local": 4}, "data_parallel_size_local: 4 is more than"),
        ({"size": 4, "rank": 4}, "4 ranks do not include rank 4"),
        ({"size": 4, "size_local": 2, "start_rank": 3}, "4 ranks do not include rank 4"),
        ({"size": 300}, "300 ranks in one pod"),
        ({"size": 0}, "data_parallel_size"),
        ({"size": 2, "size_local": 0}, "data_parallel_size_local"),
    ],
)
def test_what_vllm_refuses_is_refused_on_one_line(settings, says):
    with pytest.raises(ConfigError) as caught:
        plan(**settings)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ports_are_the_base_plus_the_global_rank():
    config = build_config(
        {
            "data_parallel_size": 5,
            "data_parallel_size_local": 3,
            "data_parallel_start_rank": 2,
            "kv_events_config": EVENTS,
        }
    )
    assert [(row.rank, row.publish, row.replay) for row in plan_endpoints(config)] == [
        (2, "tcp://*:6002", "tcp://*:7002"),
        (3, "tcp://*:6003", "tcp://*:7003"),
        (4, "tcp://*:6004", "tcp://*:7004"),
    ]


def test_the_short_flags_of_vllm_are_known():
    assert normalize_arguments(
        ["-dpl", "2", "-dpr", "2", "-dph", "-dpb", "mp", "-dpa", "10.0.0.1", "-dpp", "13345"]
    ) == [
        "--data-parallel-size-local",
        "2",
        "--data-parallel-start-rank",
        "2",
        "--data-parallel-hybrid-lb",
        "--data-parallel-backend",
        "mp",
        "--data-parallel-address",
        "10.0.0.1",
        "--data-parallel-rpc-port",
        "13345",
    ]
    assert normalize_arguments(["-dpe", "-dpn", "1"]) == ["--data-parallel-external-lb", "--data-parallel-rank", "1"]


async def ask(pod, rank):
    return await pod.post("/v1/completions", {"prompt": [7] * 20, "max_tokens": 1}, **{"X-data-parallel-rank": rank})


async def test_a_second_node_serves_its_ranks_by_their_place_on_it():
    async with start_pod(data_parallel_size=4, data_parallel_size_local=2, data_parallel_start_rank=2) as pod:
        assert (await ask(pod, "1"))[0] == 200
        assert {rank.rank: rank.engine.statistics().requests for rank in pod.pod.ranks} == {2: 0, 3: 1}
        status, answer = await ask(pod, "2")
        assert (status, answer["error"]["message"]) == (400, "data_parallel_rank 2 is out of range [0, 2).")


async def test_a_rank_of_another_node_is_named_as_such():
    async with start_pod(data_parallel_size=4, data_parallel_size_local=2) as pod:
        status, answer = await ask(pod, "3")
        assert status == 400
        assert "runs in another pod" in answer["error"]["message"]
        assert "out of range [0, 4)" in (await ask(pod, "4"))[1]["error"]["message"]


async def test_a_lone_rank_is_named_by_zero():
    async with start_pod(data_parallel_size=4, data_parallel_rank=3) as pod:
        assert (await ask(pod, "0"))[0] == 200
        assert (await ask(pod, "3"))[0] == 400
        assert [rank.rank for rank in pod.pod.ranks] == [3]
