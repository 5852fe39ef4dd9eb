"""The simulation of many engines: every engine is placed, no limit is exceeded, and a seed gives the same figures."""

import random

import pytest
import simulate_scale
from simulate_scale import Cell, Costs, Limits, Plan, Shard

SMALL = ["--engines", "3000", "--models", "40"]


def run(*arguments):
    return simulate_scale.run(simulate_scale.parse([*SMALL, *arguments]))


def test_a_seed_gives_the_same_figures():
    assert run("--seed", "7") == run("--seed", "7")
    assert run("--seed", "7") != run("--seed", "8")


def test_no_shard_exceeds_a_limit():
    figures = run("--most-publishers", "200", "--headroom", "0.4", "--memory-gib", "0.2")
    assert figures["publishers_per_shard_max"] <= 200
    assert figures["cpu_share_max"] <= 0.4
    assert figures["memory_gib_max"] <= 0.2
    assert figures["models_in_several_cells"] > 0
    assert figures["shards"] >= 3000 / 200


@pytest.mark.parametrize("limit", [("--most-publishers", "100"), ("--memory-gib", "0.1"), ("--headroom", "0.1")])
def test_a_lower_limit_of_any_kind_needs_more_shards(limit):
    assert run(*limit)["shards"] > run()["shards"]


def test_without_a_replica_the_other_one_has_all_queries_and_the_same_events():
    figures = run()
    assert figures["processes"] == 2 * figures["shards"]
    gone = figures["one_replica_gone"]
    assert figures["cpu_share_max"] < gone["cpu_share_max"] < 2 * figures["cpu_share_max"]
    assert "one_replica_gone" not in run("--replicas", "1")


def test_a_replica_that_is_overloaded_falls_behind():
    calm, busy = run(), run("--headroom", "1.4", "--most-publishers", "4000")
    assert busy["cpu_share_max"] > 1
    assert busy["match_waits_p99_ms"] > 100 * calm["match_waits_p99_ms"]


def test_an_engine_that_no_index_can_carry_ends_the_run():
    with pytest.raises(SystemExit, match="one engine"):
        run("--memory-gib", "0.0001")


def test_every_engine_of_a_model_is_in_one_cell():
    costs = Costs(0, 0, 0, 0, 0, 0, 0)
    plan = Plan(costs, Limits(100, 1e9, 1.0), 2, 1.0, 10)
    cells = simulate_scale.cells_of(1001, [1.0] * 1001, plan, 100)
    assert sum(cell.engines for cell in cells) == 1001
    assert len(cells) == 11
    assert max(cell.engines for cell in cells) <= 100
    counts = simulate_scale.engines_per_model(500, 20, random.Random(1))
    assert (sum(counts), len(counts), min(counts) >= 1) == (500, 20, True)
    assert plan.weigh(Cell(5, 1.0)).engines == 5
    assert Shard().load(2) == 0
