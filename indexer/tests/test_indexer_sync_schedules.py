"""Seeded random fault schedules in virtual time: agreement after healing, no false positive ever.

`KVSYNC_SCHEDULES=10000` runs that many; a failure names its seed.
"""

import os

import pytest
from sync_world import SETTINGS, World

from kvsync_indexer.sync import SyncSettings

SCHEDULES = int(os.environ.get("KVSYNC_SCHEDULES", "200"))
GROUPS = 8


def run_schedule(seed, *, steps=60, machine=None, **how):
    """One random life; returns the world after healing."""
    extra = {} if machine is None else {"machine": machine}
    world = World(
        seed, retention=[6, 40, 1000][seed % 3], epochs=bool(seed & 8), monitor_lag=bool(seed & 16), **how, **extra
    )
    rng = world.rng
    for _ in range(steps):
        roll = rng.random()
        if roll < 0.50:
            for _ in range(rng.randrange(1, 6)):
                world.publish(
                    lose=rng.random() < 0.1, duplicate=rng.random() < 0.1, reorder=rng.random() < 0.1,
                    poison=rng.random() < 0.01, hole=rng.random() < 0.01,
                )  # fmt: skip
        elif roll < 0.80:
            world.deliver(rng.choice([1, 3, 1000]))
        elif roll < 0.90:
            world.tick(rng.choice([0.01, 0.1, 1.0, 6.0]))
        elif roll < 0.93:
            world.partitioned = not world.partitioned
        elif roll < 0.95:
            world.alive = False
            world.network()
        elif roll < 0.97:
            world.restart(rng.choice([0, 0, 1, 5, 50]))
        else:
            world.replay_mode = rng.choice(["ok", "silent", "empty", "cut", "holes", "shuffled", "twice"])
        world.network()
    world.heal()
    return world


@pytest.mark.parametrize("group", range(GROUPS))
def test_random_schedules(group):
    for seed in range(group, SCHEDULES, GROUPS):
        try:
            run_schedule(seed).check_healed()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def test_random_schedules_without_replay():
    settings = SyncSettings(**{**{name: getattr(SETTINGS, name) for name in SETTINGS.__slots__}, "replay": False})
    for seed in range(SCHEDULES // 4):
        try:
            world = run_schedule(seed, settings=settings)
            world.publish()  # without replay only the next batch can tell what was lost before it
            world.heal(5.0)
            world.check_healed(replay=False)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
