"""Virtual time moves only when it is told to, and fires timers in the order of their deadlines."""

import asyncio

import pytest

from kvsync_testkit.clock import AsyncVirtualClock, VirtualClock
from kvsync_testkit.errors import ConfigurationError


def test_timers_fire_in_deadline_order_and_ties_in_the_order_of_asking():
    clock, fired = VirtualClock(), []
    clock.call_later(2.0, lambda: fired.append(("late", clock.now)))
    clock.call_later(1.0, lambda: fired.append(("first", clock.now)))
    clock.call_at(1.0, lambda: fired.append(("second", clock.now)))
    clock.advance(0.5)
    assert fired == []
    clock.advance(1.5)
    assert fired == [("first", 1.0), ("second", 1.0), ("late", 2.0)]
    assert clock() == 2.0


def test_a_timer_set_by_a_timer_fires_within_the_same_advance():
    clock, fired = VirtualClock(), []
    clock.call_later(1.0, lambda: clock.call_later(1.0, lambda: fired.append(clock.now)))
    clock.advance(3.0)
    assert fired == [2.0]


def test_a_cancelled_timer_neither_fires_nor_counts_as_a_deadline():
    clock, fired = VirtualClock(), []
    timer = clock.call_later(1.0, lambda: fired.append(1))
    assert clock.next_deadline() == 1.0
    timer.cancel()
    assert clock.next_deadline() is None
    clock.advance(2.0)
    assert fired == []


def test_a_deadline_in_the_past_is_due_at_once_and_does_not_turn_time_back():
    clock, fired = VirtualClock(5.0), []
    clock.call_at(1.0, lambda: fired.append(clock.now))
    clock.advance(0.0)
    assert fired == [5.0]


def test_time_does_not_run_backwards():
    clock = VirtualClock(5.0)
    with pytest.raises(ConfigurationError, match="cannot go back"):
        clock.run_until(4.0)


async def test_tasks_sleep_on_virtual_time():
    clock, woken = AsyncVirtualClock(), []

    async def sleep(seconds, again=0.0):
        await clock.sleep(seconds)
        woken.append(clock.monotonic())
        if again:
            await sleep(again)

    tasks = [asyncio.create_task(sleep(*times)) for times in ((3.0, 4.0), (1.0,), (60.0,))]
    await clock.elapse(10.0)
    assert woken == [1.0, 3.0, 7.0]
    assert clock.now == 10.0
    tasks[-1].cancel()
    await clock.settle()
    assert clock.next_deadline() is None
