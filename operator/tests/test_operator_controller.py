"""The daemons: passes are merged, failures slow down, nothing ends a daemon but the end of its resource."""

import asyncio
import random
import time

import pytest

from kvsync_operator.cache import Key
from kvsync_operator.controller import Backoff, Controller
from kvsync_operator.errors import IncompleteError

KEY = Key("MockEngine", "lab", "a")


class Passes:
    """Counts passes; raises or blocks as told."""

    def __init__(self):
        self.seen = []
        self.raises = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.again = None

    async def __call__(self, pass_):
        self.seen.append(pass_)
        await self.gate.wait()
        if self.raises:
            raise self.raises.pop(0)
        return self.again


async def until(probe, within_s=5.0):
    deadline = time.monotonic() + within_s
    while not probe():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.fixture
async def made():
    passes = Passes()
    controller = Controller(passes, 3600.0, random.Random(1), time.monotonic)
    yield controller, passes
    await controller.close()


async def test_wakes_close_together_are_one_pass(made):
    controller, passes = made
    for _ in range(50):
        controller.wake(KEY)
    await until(lambda: passes.seen)
    await asyncio.sleep(0.2)
    assert len(passes.seen) == 1
    assert not passes.seen[0].enforce


async def test_a_wake_during_a_pass_makes_one_more(made):
    controller, passes = made
    passes.gate.clear()
    controller.wake(KEY)
    await until(lambda: passes.seen)
    assert controller.stats().running == 1
    controller.wake(KEY)
    controller.wake(KEY)
    passes.gate.set()
    await until(lambda: len(passes.seen) == 2)
    await asyncio.sleep(0.2)
    assert len(passes.seen) == 2


@pytest.mark.parametrize("error", [IncompleteError("missing"), RuntimeError("bug")])
async def test_a_failure_is_tried_again_without_a_wake(made, error):
    controller, passes = made
    passes.raises = [error]
    controller.wake(KEY)
    await until(lambda: len(passes.seen) == 2)
    assert controller.stats().daemons == 1


async def test_a_pass_may_ask_to_look_again(made):
    controller, passes = made
    passes.again = 0.05
    controller.wake(KEY)
    await until(lambda: len(passes.seen) >= 4)


async def test_the_slow_resync_enforces():
    passes = Passes()
    controller = Controller(passes, 0.1, random.Random(1), time.monotonic)
    controller.wake(KEY)
    await until(lambda: any(pass_.enforce for pass_ in passes.seen))
    await controller.close()


async def test_a_forgotten_resource_gets_no_more_passes(made):
    controller, passes = made
    passes.gate.clear()
    controller.wake(KEY)
    await until(lambda: passes.seen)
    controller.forget(KEY)
    passes.gate.set()
    await asyncio.sleep(0.2)
    assert len(passes.seen) == 1
    assert controller.stats().daemons == 0


async def test_a_stuck_pass_shows(made):
    controller, passes = made
    passes.gate.clear()
    controller.wake(KEY)
    await until(lambda: controller.stats().longest_s > 0.2)
    passes.gate.set()
    await until(lambda: controller.stats().longest_s == 0.0)


def test_backoff_grows_to_a_minute():
    backoff = Backoff(random.Random(1))
    delays = [backoff.next_s() for _ in range(10)]
    assert 0.8 <= delays[0] <= 1.2
    assert all(48.0 <= delay <= 72.0 for delay in delays[6:])
