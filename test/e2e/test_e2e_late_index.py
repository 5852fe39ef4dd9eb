"""Late index: an index that starts after its engines, and an index pod that is killed and replaced."""

from e2e_engines import BLOCK, tokens_of

from kvsync_testkit.cluster import wait_until


def fill(pods, model, label, count=5):
    prompts = {}
    for pod in pods:
        for number in range(count):
            tokens = tokens_of((label, pod.name, number), 6 * BLOCK)
            pod.complete(tokens, model=model)
            prompts.setdefault(pod.name, []).append(tokens)
    return prompts


def test_an_index_that_comes_later_catches_up_by_replay(deploy, namespace):
    engine = deploy.engine("early", namespace, replicas=2)
    pods = engine.wait_ready(2)
    prompts = fill(pods, "early", "before the index")

    index = deploy.index("idx", namespace)
    index.wait_ready()
    rows = index.wait_live([pod.name for pod in pods])
    counts = index.wait_agrees(pods)
    assert set(counts.values()) == {30}
    assert not any(row["incomplete"] for row in rows)
    for pod in pods:
        assert index.matched("early", prompts[pod.name][0]) == {pod.name: 6}


def test_a_history_longer_than_the_replay_buffer_is_marked_and_never_over_claimed(deploy, namespace):
    engine = deploy.engine("longpast", namespace, events={"bufferSteps": 4})
    (pod,) = engine.wait_ready(1)
    fill([pod], "longpast", "lost to the buffer", count=10)
    pod.wait_quiet()

    index = deploy.index("idx", namespace)
    index.wait_ready()
    (row,) = index.wait_live([pod.name])
    assert row["incomplete"], "the index reports that the replay buffer did not reach back to the first batch"
    truth, indexed = pod.blocks(), index.blocks_of(pod.name)
    assert set(indexed) < set(truth), "I2: the index has no block that the pod does not have"
    assert indexed, "the index has the blocks of the replay buffer"


def test_a_killed_index_pod_is_replaced_and_catches_up(deploy, namespace, kube):
    engine = deploy.engine("steady", namespace, replicas=2)
    index = deploy.index("idx", namespace)
    pods = engine.wait_ready(2)
    (before,) = index.wait_ready()
    index.wait_live([pod.name for pod in pods])
    prompts = fill(pods, "steady", "first half")
    index.wait_agrees(pods)

    kube.delete("Pod", before["metadata"]["name"], namespace, grace_s=0)
    fill(pods, "steady", "while it is away")

    def replaced():
        (now,) = index.wait_ready(deadline_s=5.0)
        return now["metadata"]["uid"] != before["metadata"]["uid"]

    wait_until("another index pod is ready", replaced, deadline_s=60.0)
    index.wait_live([pod.name for pod in pods])
    counts = index.wait_agrees(pods)
    assert set(counts.values()) == {60}
    for pod in pods:
        assert index.matched("steady", prompts[pod.name][0]) == {pod.name: 6}
