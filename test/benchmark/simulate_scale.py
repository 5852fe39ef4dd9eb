"""Simulates how an index that is divided by model and replicated carries very many engines.

    python simulate_scale.py [--engines 100000] [--models 2000] [--seed 1] [--headroom 0.5] …

Prints JSON; the same arguments give the same figures. Nothing is measured here. What a piece of work costs is an
argument, whose default was measured with `bench_scale_index.py`, and what engines do is an argument, which is assumed.

1. The engines are distributed over the models by Zipf's law, and each engine gets a request rate of its own.
2. A model with more engines than one index may follow is divided into cells of equal size. A cell is what is placed.
3. Cells are placed on shards, the heaviest first, each on the least loaded shard that has room for its publishers,
   blocks and CPU time. A new shard is opened if there is none.
4. Every shard has `--replicas` processes, all of which apply every event, while queries are divided among them. A
   replica of the heaviest shard then serves random arrivals: with all replicas present, and when one is gone and the
   others answer its queries.
"""

import argparse
import json
import math
import random
import statistics
import sys
from dataclasses import dataclass, field

from kvsync_workload.percentiles import percentile

ARRIVALS = 400_000
"""Batches and matches that arrive at a replica in the simulation."""


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU seconds of one index process, and bytes."""

    idle_s: float
    """Per second and publisher, for timers."""
    batch_s: float
    match_s: float
    """Of a match against a model without publishers."""
    match_publisher_s: float
    """Added for each publisher of the model, each of which has a row in the answer."""
    publisher_bytes: float
    block_bytes: float
    row_bytes: float
    """Of an answer, for each publisher of the model."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one index process may carry."""

    publishers: int
    memory_bytes: float
    headroom: float
    """Share of one processor that all work may take on average, with all replicas present."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Engines of one model that are followed together."""

    engines: int
    requests_per_s: float


@dataclass(slots=True)
class Shard:
    """The cells of one index, which each of its replicas follows."""

    cells: list[Cell] = field(default_factory=list)
    engines: int = 0
    memory: float = 0.0
    event_load: float = 0.0
    query_load: float = 0.0
    answer_bytes_per_s: float = 0.0
    """Of all replicas together."""

    def load(self, replicas: int) -> float:
        """CPU share of one replica if there are `replicas`."""
        return self.event_load + self.query_load / replicas


class Plan:
    """Places cells on shards."""

    def __init__(self, costs: Costs, limits: Limits, replicas: int, batches_per_s: float, blocks: int) -> None:
        self.shards: list[Shard] = []
        self._costs, self._limits, self._replicas = costs, limits, replicas
        self._batches_per_s, self._blocks = batches_per_s, blocks

    def weigh(self, cell: Cell) -> Shard:
        """A shard with this cell alone."""
        costs = self._costs
        return Shard(
            [cell],
            cell.engines,
            cell.engines * (costs.publisher_bytes + self._blocks * costs.block_bytes),
            cell.engines * (costs.idle_s + self._batches_per_s * costs.batch_s),
            cell.requests_per_s * (costs.match_s + cell.engines * costs.match_publisher_s),
            cell.requests_per_s * cell.engines * costs.row_bytes,
        )

    def fits(self, one: Shard, other: Shard) -> bool:
        """Whether one index may carry both."""
        limits = self._limits
        load = one.load(self._replicas) + other.load(self._replicas)
        return (
            one.engines + other.engines <= limits.publishers
            and one.memory + other.memory <= limits.memory_bytes
            and load <= limits.headroom
        )

    def place(self, cell: Cell) -> None:
        """Put the cell on the least loaded shard that has room."""
        added = self.weigh(cell)
        for shard in sorted(self.shards, key=lambda each: each.load(self._replicas)):
            if self.fits(shard, added):
                shard.cells += added.cells
                shard.engines += added.engines
                shard.memory += added.memory
                shard.event_load += added.event_load
                shard.query_load += added.query_load
                shard.answer_bytes_per_s += added.answer_bytes_per_s
                return
        self.shards.append(added)


def engines_per_model(engines: int, models: int, rng: random.Random) -> list[int]:
    """Zipf's law with exponent 1; every model has an engine."""
    weights = [1 / rank for rank in range(1, models + 1)]
    counts = [1] * models
    for model in rng.choices(range(models), weights, k=engines - models):
        counts[model] += 1
    return counts


def cells_of(engines: int, rates: list[float], plan: Plan, most: int) -> list[Cell]:
    """Divide the engines of one model into as few cells as an index can carry."""
    count = math.ceil(engines / most)
    while True:
        size = math.ceil(engines / count)
        cells = [Cell(len(part), sum(part)) for part in (rates[at : at + size] for at in range(0, engines, size))]
        if all(plan.fits(Shard(), plan.weigh(cell)) for cell in cells):
            return cells
        if size == 1:
            raise SystemExit("one engine is more than one index may carry")
        count += 1


def waits_ms(shard: Shard, replicas: int, costs: Costs, rng: random.Random) -> list[float]:
    """How long each match waits in one replica until its turn, in milliseconds.

    Batches and matches arrive at random times (Poisson) and are served one after the other, in their order.
    """
    size = max(cell.engines for cell in shard.cells)
    per_match = costs.match_s + size * costs.match_publisher_s
    timers = shard.engines * costs.idle_s
    batches = (shard.event_load - timers) / costs.batch_s
    matches = shard.query_load / replicas / per_match
    speed = 1 - timers  # what the timers leave
    waiting, waits = 0.0, []
    for _ in range(ARRIVALS):
        waiting = max(0.0, waiting - rng.expovariate(batches + matches))
        if rng.random() * (batches + matches) < matches:
            waits.append(1e3 * waiting)
            waiting += per_match / speed
        else:
            waiting += costs.batch_s / speed
    return waits


def run(options: argparse.Namespace) -> dict[str, object]:
    """Simulate and return the figures."""
    rng = random.Random(options.seed)
    costs = Costs(
        options.idle_us / 1e6, options.batch_us / 1e6, options.match_us / 1e6, options.match_publisher_us / 1e6,
        options.publisher_kib * 1024, options.block_bytes, options.row_bytes,
    )  # fmt: skip
    limits = Limits(options.most_publishers, options.memory_gib * 2**30, options.headroom)
    plan = Plan(costs, limits, options.replicas, options.batches_per_s, options.blocks)
    cells: list[Cell] = []
    divided = 0
    counts = engines_per_model(options.engines, options.models, rng)
    for engines in counts:
        rates = [options.requests_per_s * rng.lognormvariate(-0.125, 0.5) for _ in range(engines)]
        parts = cells_of(engines, rates, plan, options.most_publishers)
        divided += len(parts) > 1
        cells += parts
    for cell in sorted(cells, key=lambda one: plan.weigh(one).load(options.replicas), reverse=True):
        plan.place(cell)
    loads = [shard.load(options.replicas) for shard in plan.shards]
    heaviest = max(plan.shards, key=lambda shard: shard.load(options.replicas))
    usual = waits_ms(heaviest, options.replicas, costs, rng)
    figures: dict[str, object] = {
        "engines": options.engines,
        "largest_model": max(counts),
        "models_in_several_cells": divided,
        "cells": len(cells),
        "shards": len(plan.shards),
        "processes": len(plan.shards) * options.replicas,
        "cpu_share_mean": round(statistics.mean(loads), 3),
        "cpu_share_max": round(max(loads), 3),
        "publishers_per_shard_max": max(shard.engines for shard in plan.shards),
        "memory_gib_max": round(max(shard.memory for shard in plan.shards) / 2**30, 2),
        "memory_gib_total": round(sum(shard.memory for shard in plan.shards) * options.replicas / 2**30, 1),
        "answers_mib_per_s_max": round(
            max(shard.answer_bytes_per_s for shard in plan.shards) / options.replicas / 2**20
        ),
        "match_waits_p99_ms": round(percentile(usual, 99) or 0.0, 2),
    }
    if options.replicas > 1:
        left = waits_ms(heaviest, options.replicas - 1, costs, rng)
        figures["one_replica_gone"] = {
            "cpu_share_max": round(heaviest.load(options.replicas - 1), 3),
            "match_waits_p99_ms": round(percentile(left, 99) or 0.0, 2),
        }
    return figures


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engines", type=int, default=100_000)
    parser.add_argument("--models", type=int, default=2_000)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--most-publishers", type=int, default=1_000)
    parser.add_argument("--memory-gib", type=float, default=8.0)
    parser.add_argument("--headroom", type=float, default=0.5)
    parser.add_argument("--blocks", type=int, default=20_000, help="per engine")
    parser.add_argument("--batches-per-s", type=float, default=10.0, help="per engine")
    parser.add_argument("--requests-per-s", type=float, default=2.0, help="per engine")
    parser.add_argument("--idle-us", type=float, default=110.0, help="per publisher and second")
    parser.add_argument("--batch-us", type=float, default=25.0)
    parser.add_argument("--match-us", type=float, default=45.0)
    parser.add_argument("--match-publisher-us", type=float, default=0.16)
    parser.add_argument("--publisher-kib", type=float, default=70.0)
    parser.add_argument("--block-bytes", type=float, default=60.0)
    parser.add_argument("--row-bytes", type=float, default=162.0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    json.dump(run(parse()), sys.stdout, indent=1)
    print()
