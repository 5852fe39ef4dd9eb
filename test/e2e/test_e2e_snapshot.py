"""Snapshot and replicas: a restarted index resumes from its snapshot, and each replica follows every engine."""

from e2e_engines import BLOCK, tokens_of
from e2e_index import parse_blocks

from kvsync_testkit.cluster import wait_until


def test_a_restarted_index_container_resumes_from_its_snapshot(deploy, namespace, kube):
    # The replay buffer is too short for the old blocks, which only the snapshot can restore.
    engine = deploy.engine("shortmemory", namespace, events={"bufferSteps": 4})
    index = deploy.index("idx", namespace, snapshot={"volume": "EmptyDir", "size": "64Mi"})
    (pod,) = engine.wait_ready(1)
    (before,) = index.wait_ready()
    index.wait_live([pod.name])
    prompts = [tokens_of(("snap", number), 6 * BLOCK) for number in range(12)]
    for tokens in prompts:
        pod.complete(tokens, model="shortmemory")
    index.wait_agrees([pod])
    name = before["metadata"]["name"]

    kube.execute(name, namespace, ["python3", "-c", "import os; os.kill(1, 15)"])

    def restarted():
        (status,) = kube.get("Pod", name, namespace)["status"]["containerStatuses"]
        return status["restartCount"] == 1 and status["ready"]

    wait_until("the index container restarted", restarted, deadline_s=60.0)
    index.wait_live([pod.name])
    index.wait_agrees([pod])
    assert index.matched("shortmemory", prompts[0]) == {pod.name: 6}


def test_a_claim_outlives_the_index_pod(deploy, namespace, kube, volume_class):
    engine = deploy.engine("shortmemory", namespace, events={"bufferSteps": 4})
    snapshot = {"volume": "PersistentVolumeClaim", "size": "64Mi"}
    if volume_class:
        snapshot["storageClassName"] = volume_class
    index = deploy.index("idx", namespace, snapshot=snapshot)
    (pod,) = engine.wait_ready(1)
    (before,) = index.wait_ready()
    index.wait_live([pod.name])
    prompts = [tokens_of(("claim", number), 6 * BLOCK) for number in range(12)]
    for tokens in prompts:
        pod.complete(tokens, model="shortmemory")
    index.wait_agrees([pod])
    kube.delete("Pod", before["metadata"]["name"], namespace)

    def replaced():
        (now,) = index.wait_ready(deadline_s=5.0)
        return now["metadata"]["uid"] != before["metadata"]["uid"]

    wait_until("the index pod was replaced", replaced, deadline_s=90.0)
    index.wait_live([pod.name])
    index.wait_agrees([pod])
    assert index.matched("shortmemory", prompts[0]) == {pod.name: 6}
    kube.delete("PrefixIndex", "idx", namespace)
    wait_until("the claim is deleted", lambda: not kube.objects("PersistentVolumeClaim", namespace), deadline_s=60.0)


def test_each_replica_of_the_index_follows_every_engine(deploy, namespace, kube):
    engine = deploy.engine("watched", namespace, replicas=2)
    index = deploy.index("idx", namespace, replicas=2)
    pods = engine.wait_ready(2)
    replicas = index.wait_ready(2)
    prompts = {pod.name: tokens_of(pod.name, 6 * BLOCK) for pod in pods}
    for pod in pods:
        pod.complete(prompts[pod.name], model="watched")
        pod.wait_quiet()
    for replica in replicas:
        wait_until(
            f"{replica['metadata']['name']} agrees with every engine",
            lambda replica=replica: all(_indexed_blocks(kube, namespace, replica, pod) == pod.blocks() for pod in pods),
            deadline_s=60.0,
        )
    assert index.matched("watched", prompts[pods[0].name]) == {pods[0].name: 6}


def _indexed_blocks(kube, namespace, replica, pod):
    """Return the blocks that one index pod, asked directly, has for an engine pod."""
    name = replica["metadata"]["name"]
    base = kube.pod_path(namespace, name, 8090, "/v1/publishers")
    rows = [row for row in kube.call("GET", base)["publishers"] if row["pod"].rsplit("/", 1)[-1] == pod.name]
    assert rows, f"{name} does not know {pod.name}"
    assert all(row["state"] == "live" for row in rows)
    table = {}
    for row in rows:
        table |= parse_blocks(kube.send("GET", f"{base}/{row['name'].replace('/', '%2F')}/blocks").data)
    return table
