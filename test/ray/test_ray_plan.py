"""A sweep on a Ray cluster of two nodes on this machine: the same results, also if a node dies in the middle."""

from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from kvsync.plan.outcome import Task, Work, run_task
from kvsync.plan.sweep import Fixed, Sweep
from kvsync_testkit.waiting import wait_until
from kvsync_workload.arrivals import Arrivals
from kvsync_workload.campaigns import InProcess, Ray
from kvsync_workload.trace import read_trace

TRACE = Path(__file__).resolve().parents[2] / "examples/traces/mooncake_conversation.jsonl"
MEMORY = 100_000_000
pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def cluster():
    """A cluster with a head that runs no tasks, and two nodes with one CPU each."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": MEMORY})
    try:
        nodes = [made.add_node(num_cpus=1, object_store_memory=MEMORY) for _ in range(2)]
        ray.init(address=made.address, log_to_driver=False)
        wait_until("both nodes to join", lambda: ray.cluster_resources().get("CPU") == 2, deadline_s=120)
        yield made, nodes
    finally:
        ray.shutdown()
        made.shutdown()


def test_a_sweep_gives_the_same_results_although_a_node_dies(cluster):
    made, nodes = cluster
    work = Work(read_trace(TRACE, 300).requests, Arrivals(), Fixed())
    tasks = [Task(configuration, seed) for configuration in Sweep().configurations() for seed in range(4)]
    killed = []

    def kill_a_node(done):
        if done == 4:
            made.remove_node(nodes[0], allow_graceful=False)
            killed.append(done)

    found = Ray(made.address).run(run_task, work, tasks, kill_a_node)
    assert killed == [4]
    assert ray.cluster_resources()["CPU"] == 1
    assert found == InProcess().run(run_task, work, tasks, lambda done: None)


def fail(shared, task):
    raise ValueError(f"task {task}")


def test_an_error_of_a_task_is_raised(cluster):
    with pytest.raises(ValueError, match="task 3"):
        Ray(cluster[0].address).run(fail, None, [3], lambda done: None)
