"""Waiting: the first truthy result is returned, and a deadline names what was waited for."""

import asyncio

import pytest

from kvsync_testkit.ports import free_port, free_ports
from kvsync_testkit.waiting import DeadlineError, until, wait_until


def test_wait_until_returns_the_first_truthy_result():
    answers = iter([None, 0, "here"])
    assert wait_until("an answer", lambda: next(answers), every_s=0.0) == "here"


def test_wait_until_names_what_it_waited_for():
    with pytest.raises(DeadlineError, match="the moon: not within 0 s; last seen: 0"):
        wait_until("the moon", lambda: 0, deadline_s=0)


def test_wait_until_retries_only_the_named_errors():
    answers = iter([OSError("no"), 1])

    def probe():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert wait_until("one", probe, every_s=0.0, retry_on=(OSError,)) == 1
    with pytest.raises(ZeroDivisionError):
        wait_until("never", lambda: 1 / 0, retry_on=(OSError,))


async def test_until_takes_plain_and_asynchronous_probes():
    event = asyncio.Event()
    asyncio.get_running_loop().call_soon(event.set)
    assert await until("the event", event.is_set)

    async def probe():
        return 7

    assert await until("seven", probe) == 7
    with pytest.raises(DeadlineError, match="nothing"):
        await until("nothing", lambda: None, deadline_s=0)


def test_free_ports_are_different():
    assert len(set(free_ports(8))) == 8
    assert 0 < free_port() < 65536
