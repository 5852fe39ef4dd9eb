"""Campaigns: the same results in the order of the tasks, wherever they run, and lost tasks run again."""

import os
import signal
from pathlib import Path

import pytest

from kvsync_workload.campaigns import InProcess, Processes, Ray
from kvsync_workload.errors import CampaignError


def square(shared, task):
    return shared + task * task


def fail(shared, task):
    raise ValueError(f"task {task} of {shared}")


def die_once(folder, task):
    """Kill the worker at the first attempt of every third task."""
    mark = Path(folder) / str(task)
    if task % 3 == 0 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def die(shared, task):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("executor", [InProcess(), Processes(2)], ids=["in process", "processes"])
def test_results_are_in_the_order_of_the_tasks(executor):
    done = []
    assert executor.run(square, 100, [3, 1, 2], done.append) == [109, 101, 104]
    assert done == [1, 2, 3]


@pytest.mark.parametrize("executor", [InProcess(), Processes(2)], ids=["in process", "processes"])
def test_an_error_of_a_task_is_raised(executor):
    with pytest.raises(ValueError, match="task 7 of x"):
        executor.run(fail, "x", [7], lambda done: None)


def test_tasks_that_are_lost_with_their_worker_run_again(tmp_path):
    assert Processes(2).run(die_once, str(tmp_path), list(range(4)), lambda done: None) == [0, 1, 2, 3]
    assert sorted(mark.name for mark in tmp_path.iterdir()) == ["0", "3"]


def test_a_task_that_always_kills_its_worker_ends_the_campaign():
    with pytest.raises(CampaignError, match="1 tasks were lost 4 times"):
        Processes(1).run(die, None, [1], lambda done: None)


def test_ray_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(CampaignError, match=r"kvsync\[ray\]"):
        Ray("auto")
