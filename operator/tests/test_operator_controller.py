"""The workers, on virtual time: wake-ups are merged, failures are retried with growing delays, none ends a worker."""

import asyncio
import random

import pytest

from kvsync_operator.cache import Key
from kvsync_operator.clock import SystemClock, wait_for_event
from kvsync_operator.controller import Backoff, Controller
from kvsync_operator.errors import IncompleteError
from kvsync_testkit.clock import AsyncVirtualClock

KEY = Key("MockEngine", "lab", "a")
RESYNC_S = 3600.0


class Passes:
    """Records the passes and their times; raises, blocks and answers as the test tells it to."""

    def __init__(self, clock):
        self.clock = clock
        self.seen = []
        self.times = []
        self.raises = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.again_s = None

    async def __call__(self, request):
        self.seen.append(request)
        self.times.append(self.clock.monotonic())
        await self.gate.wait()
        if self.raises:
            raise self.raises.pop(0)
        return self.again_s


@pytest.fixture
def clock():
    return AsyncVirtualClock()


@pytest.fixture
async def made(clock):
    passes = Passes(clock)
    controller = Controller(passes, RESYNC_S, random.Random(1), clock)
    yield controller, passes
    await controller.close()


async def test_wake_ups_in_quick_succession_are_one_pass(made, clock):
    controller, passes = made
    for _ in range(50):
        controller.wake(KEY)
        await clock.elapse(0.001)
    await clock.elapse(60.0)
    assert len(passes.seen) == 1
    assert not passes.seen[0].enforce


async def test_wake_ups_during_a_pass_make_one_more(made, clock):
    controller, passes = made
    passes.gate.clear()
    controller.wake(KEY)
    await clock.elapse(1.0)
    assert controller.stats().running == 1
    controller.wake(KEY)
    controller.wake(KEY)
    await clock.elapse(60.0)
    assert len(passes.seen) == 1, "a worker makes one pass at a time"
    passes.gate.set()
    await clock.elapse(60.0)
    assert len(passes.seen) == 2


async def test_every_resource_has_a_worker_of_its_own(made, clock):
    controller, passes = made
    passes.gate.clear()
    for name in ("a", "b", "c"):
        controller.wake(KEY._replace(name=name))
    await clock.elapse(1.0)
    assert {request.key.name for request in passes.seen} == {"a", "b", "c"}
    assert controller.stats().running == 3


@pytest.mark.parametrize("error", [IncompleteError("missing"), RuntimeError("bug")])
async def test_a_failed_pass_is_retried_without_a_wake_up(made, clock, error):
    controller, passes = made
    passes.raises = [error]
    controller.wake(KEY)
    await clock.elapse(10.0)
    assert len(passes.seen) == 2
    assert controller.stats().workers == 1


async def test_failures_in_a_row_are_retried_with_growing_delays(made, clock):
    controller, passes = made
    passes.raises = [IncompleteError("missing")] * 5
    controller.wake(KEY)
    await clock.elapse(120.0)
    delays = [later - earlier for earlier, later in zip(passes.times, passes.times[1:], strict=False)]
    assert len(delays) == 5
    assert all(0.8 * 2**number <= delay <= 1.2 * 2**number for number, delay in enumerate(delays, start=0)), delays


async def test_wake_ups_do_not_turn_a_failing_pass_into_a_busy_loop(made, clock):
    controller, passes = made
    passes.raises = [IncompleteError("missing")] * 1000
    for _ in range(1000):
        controller.wake(KEY)
        await clock.elapse(0.01)
    assert 2 <= len(passes.seen) <= 11, "at most one pass per second"


async def test_a_pass_can_ask_for_the_next_one(made, clock):
    controller, passes = made
    passes.again_s = 5.0
    controller.wake(KEY)
    await clock.elapse(16.0)
    assert passes.times == pytest.approx([0.05, 5.05, 10.05, 15.05])


async def test_the_slow_resync_enforces(made, clock):
    controller, passes = made
    controller.wake(KEY)
    await clock.elapse(0.85 * RESYNC_S)
    assert [request.enforce for request in passes.seen] == [False]
    await clock.elapse(0.3 * RESYNC_S)
    assert [request.enforce for request in passes.seen] == [False, True]
    await clock.elapse(1.15 * RESYNC_S)
    assert [request.enforce for request in passes.seen] == [False, True, True]


async def test_a_resync_that_fails_is_enforced_again(made, clock):
    controller, passes = made
    controller.wake(KEY)
    await clock.elapse(1.0)
    passes.raises = [IncompleteError("missing")]
    await clock.elapse(1.2 * RESYNC_S)
    assert [request.enforce for request in passes.seen] == [False, True, True]


async def test_a_forgotten_resource_gets_no_more_passes(made, clock):
    controller, passes = made
    passes.gate.clear()
    controller.wake(KEY)
    await clock.elapse(1.0)
    controller.forget(KEY)
    passes.gate.set()
    await clock.elapse(2 * RESYNC_S)
    assert len(passes.seen) == 1
    assert controller.stats().workers == 0


async def test_the_time_of_a_stuck_pass_is_reported(made, clock):
    controller, passes = made
    passes.gate.clear()
    controller.wake(KEY)
    assert controller.stats().woken == 1
    await clock.elapse(100.05)
    assert controller.stats().longest_s == pytest.approx(100.0)
    passes.gate.set()
    await clock.settle()
    assert controller.stats().longest_s == 0.0
    assert (controller.stats().woken, controller.stats().running) == (0, 0)


def test_backoff_grows_to_a_minute():
    backoff = Backoff(random.Random(1))
    delays = [backoff.next_s() for _ in range(10)]
    assert 0.8 <= delays[0] <= 1.2
    assert all(48.0 <= delay <= 72.0 for delay in delays[6:])


async def test_the_system_clock_waits_for_an_event_and_for_its_timeout():
    clock, event = SystemClock(), asyncio.Event()
    assert not await wait_for_event(clock, event, 0.0)
    began = clock.monotonic()
    await clock.sleep(0.01)
    assert clock.monotonic() > began
    event.set()
    assert await wait_for_event(clock, event, 3600.0)
