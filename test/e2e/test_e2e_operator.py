"""Operator: upgrades during traffic, restarts, drift, invalid resources, permissions, pod security, deletion."""

import pytest
from e2e_engines import BLOCK, Engine, tokens_of
from e2e_router import BackgroundTraffic, Router

from kvsync_testkit.cluster import wait_until, wait_while
from kvsync_testkit.cluster.dumping import KINDS
from kvsync_testkit.kube import KubeError, condition

OWNED = [kind for kind in KINDS if kind not in ("MockEngine", "PrefixIndex", "ReplicaSet", "Pod")]


def wait_condition(kube, kind, name, namespace, wanted, *, deadline_s=60.0, **expect):
    """Wait for a condition such as `Ready=True` of the latest generation. `expect` has substrings of its fields."""
    condition_type, status = wanted.split("=")

    def probe():
        resource = kube.get(kind, name, namespace)
        found = condition(resource, condition_type)
        assert found["status"] == status, f"{condition_type} is {found}"
        generation = resource["metadata"]["generation"]
        assert found.get("observedGeneration") == generation, (
            f"the condition is not of generation {generation}: {found}"
        )
        for key, text in expect.items():
            assert text in found[key], found
        return resource

    return wait_until(f"{kind} {name} has {wanted}", probe, deadline_s=deadline_s)


def owned_objects(kube, namespace):
    """Return (kind, name) of every object of the operator in the namespace."""
    managed = "app.kubernetes.io/managed-by=kvsync-operator"
    return sorted((kind, item["metadata"]["name"]) for kind in OWNED for item in kube.objects(kind, namespace, managed))


def test_status_is_truthful_from_creation_to_ready(deploy, namespace, kube):
    deploy.engine("status", namespace, replicas=2)
    deploy.index("idx", namespace)
    engine = wait_condition(kube, "MockEngine", "status", namespace, "Ready=True")
    assert (engine["status"]["replicas"], engine["status"]["readyReplicas"]) == (2, 2)
    assert len(Engine(kube, namespace, "status").pods()) == 2
    index = wait_condition(kube, "PrefixIndex", "idx", namespace, "Synced=True")
    assert index["status"]["publishers"]["live"] == index["status"]["publishers"]["total"] == 2
    selector = engine["status"]["selector"]
    assert len(kube.objects("Pod", namespace, selector)) == 2, "the selector of the scale subresource matches the pods"


def test_helm_upgrade_with_traffic_running(deploy, namespace, kube, installation):
    engine = deploy.engine("fleet", namespace, replicas=2)
    index = deploy.index("idx", namespace, router={"policy": "kv"})
    pods = engine.wait_ready(2)
    index.wait_ready()
    index.wait_live([pod.name for pod in pods])
    router = Router(kube, namespace, "idx-router")
    router.wait_knows(2)
    prompts = [tokens_of(("upgrade", number), 6 * BLOCK) for number in range(20)]
    before = installation.operator_pod()
    with BackgroundTraffic(router, "fleet", prompts) as traffic:
        wait_until("traffic flows", lambda: len(traffic.tally.outcomes) >= 10, deadline_s=30.0)
        installation.upgrade()
        wait_until(
            "another operator pod is ready",
            lambda: installation.operator_pod()["metadata"]["uid"] != before["metadata"]["uid"],
            deadline_s=90.0,
        )
        mark = len(traffic.tally.outcomes)
        wait_until("traffic continues", lambda: len(traffic.tally.outcomes) >= mark + 20, deadline_s=30.0)
    assert traffic.tally.failures() == []
    assert engine.wait_ready(2) == pods, "an upgrade of the operator restarts no engine"
    index.wait_agrees(pods)
    engine.scale(1)
    engine.wait_ready(1)


def test_rolling_update_of_the_engines_with_traffic_running(deploy, namespace, kube):
    engine = deploy.engine("fleet", namespace, replicas=2, terminationGrace="10s")
    index = deploy.index("idx", namespace, router={"policy": "kv"})
    old = engine.wait_ready(2)
    index.wait_ready()
    index.wait_live([pod.name for pod in old])
    router = Router(kube, namespace, "idx-router")
    router.wait_knows(2)
    prompts = [tokens_of(("rolling", number), 6 * BLOCK) for number in range(20)]
    with BackgroundTraffic(router, "fleet", prompts) as traffic:
        wait_until("traffic flows", lambda: len(traffic.tally.outcomes) >= 10, deadline_s=30.0)
        kube.patch("MockEngine", "fleet", namespace, {"spec": {"cache": {"numGpuBlocks": 5000}}})
        wait_condition(kube, "MockEngine", "fleet", namespace, "Ready=True", deadline_s=120.0)
        new = engine.wait_ready(2, deadline_s=90.0)
        index.wait_live([pod.name for pod in new])
        mark = len(traffic.tally.outcomes)
        wait_until("traffic continues", lambda: len(traffic.tally.outcomes) >= mark + 10, deadline_s=30.0)
    assert not set(new) & set(old), "every pod was replaced"
    assert traffic.tally.failures() == []
    index.wait_agrees(new)


def test_an_operator_killed_in_the_middle_of_a_rollout_converges(deploy, namespace, kube, installation):
    engine = deploy.engine("rollout", namespace, replicas=3)
    old = engine.wait_ready(3)
    kube.patch("MockEngine", "rollout", namespace, {"spec": {"cache": {"numGpuBlocks": 6000}, "replicas": 4}})
    wait_until("the rollout began", lambda: len(engine.all_pods()) > 3, deadline_s=60.0)
    killed = installation.operator_pod()
    kube.delete("Pod", killed["metadata"]["name"], installation.namespace, grace_s=0)
    resource = wait_condition(kube, "MockEngine", "rollout", namespace, "Ready=True", deadline_s=150.0)
    pods = engine.wait_ready(4)
    assert not set(pods) & set(old)
    status = resource["status"]
    assert (status["replicas"], status["updatedReplicas"], status["readyReplicas"]) == (4, 4, 4)
    wait_condition(kube, "MockEngine", "rollout", namespace, "Progressing=False")


def test_drift_is_repaired(deploy, namespace, kube):
    engine = deploy.engine("drift", namespace)
    deploy.index("idx", namespace)
    engine.wait_ready(1)
    wait_condition(kube, "MockEngine", "drift", namespace, "Ready=True")
    wait_condition(kube, "PrefixIndex", "idx", namespace, "Ready=True")
    complete = owned_objects(kube, namespace)
    name = engine.workload

    kube.patch("Deployment", name, namespace, {"spec": {"replicas": 3}})
    wait_until(
        "the number of replicas is restored",
        lambda: kube.get("Deployment", name, namespace)["spec"]["replicas"] == 1,
        deadline_s=60.0,
    )
    kube.patch("ConfigMap", name, namespace, {"data": {"config.yaml": "port: 1\n"}})
    wait_until(
        "the configuration is restored",
        lambda: "block-size" in kube.get("ConfigMap", name, namespace)["data"]["config.yaml"],
        deadline_s=60.0,
    )
    for kind, victim in [("Service", name), ("NetworkPolicy", name), ("Service", "idx-index"), ("Deployment", name)]:
        kube.delete(kind, victim, namespace)
    wait_until("the deleted objects exist again", lambda: owned_objects(kube, namespace) == complete, deadline_s=90.0)
    engine.wait_ready(1)
    wait_condition(kube, "MockEngine", "drift", namespace, "Ready=True")


def test_deleting_the_resources_leaves_nothing(deploy, namespace, kube):
    other = deploy.namespace("-other")
    engine = deploy.engine("leaver", namespace)
    index = deploy.index("idx", namespace, namespaces=[namespace, other])
    engine.wait_ready(1)
    index.wait_ready()
    assert owned_objects(kube, namespace)
    assert owned_objects(kube, other), "a Role permits the index to watch the other namespace"
    kube.delete("MockEngine", "leaver", namespace)
    kube.delete("PrefixIndex", "idx", namespace)
    wait_until("the resources no longer exist", lambda: not kube.find("PrefixIndex", "idx", namespace), deadline_s=60.0)

    def nothing_is_left():
        left = owned_objects(kube, namespace) + owned_objects(kube, other)
        left += [("Pod", pod["metadata"]["name"]) for pod in kube.objects("Pod", namespace)]
        assert not left
        return True

    wait_until("nothing is left", nothing_is_left, deadline_s=60.0)


def test_an_invalid_resource_becomes_a_condition_and_can_be_corrected(deploy, namespace, kube, installation):
    deploy.engine("wrong", namespace, events={"wireVersion": "0.1.0"})
    wait_condition(kube, "MockEngine", "wrong", namespace, "Degraded=True", message="spec.events.wireVersion")
    assert condition(kube.get("MockEngine", "wrong", namespace), "Ready")["status"] == "False"
    assert kube.objects("Pod", namespace) == []
    (status,) = installation.operator_pod()["status"]["containerStatuses"]
    restarts = status["restartCount"]
    kube.patch("MockEngine", "wrong", namespace, {"spec": {"events": {"wireVersion": "0.33.0"}}})
    wait_condition(kube, "MockEngine", "wrong", namespace, "Ready=True", deadline_s=90.0)
    (status,) = installation.operator_pod()["status"]["containerStatuses"]
    assert status["restartCount"] == restarts


def test_accounts_may_do_what_they_need_and_nothing_else(deploy, namespace, kube, installation):
    deploy.engine("subject", namespace).wait_ready(1)
    index = deploy.index("idx", namespace)
    index.wait_ready()
    operator = f"system:serviceaccount:{installation.namespace}:{installation.operator_account()}"
    engine = f"system:serviceaccount:{namespace}:subject-engine"
    reader = f"system:serviceaccount:{namespace}:idx-index"

    assert kube.can_i(operator, "patch", "deployments", group="apps", namespace=namespace)
    assert kube.can_i(operator, "patch", "mockengines", group="kvsync.dev", namespace=namespace, sub="status")
    for verb, resource, group in [
        ("get", "secrets", ""),
        ("list", "secrets", ""),
        ("create", "secrets", ""),
        ("delete", "nodes", ""),
        ("delete", "namespaces", ""),
        ("create", "clusterroles", "rbac.authorization.k8s.io"),
        ("escalate", "roles", "rbac.authorization.k8s.io"),
        ("delete", "mockengines", "kvsync.dev"),
        ("*", "*", "*"),
    ]:
        assert not kube.can_i(operator, verb, resource, group=group, namespace=namespace), (verb, resource)
    assert not kube.can_i(operator, "create", "pods", namespace=namespace, sub="exec")

    assert kube.can_i(reader, "watch", "pods", namespace=namespace)
    assert not kube.can_i(reader, "watch", "pods", namespace="kube-system")
    for verb, resource in [("delete", "pods"), ("get", "secrets"), ("get", "configmaps")]:
        assert not kube.can_i(reader, verb, resource, namespace=namespace)
    for verb, resource in [("get", "pods"), ("list", "pods"), ("get", "secrets")]:
        assert not kube.can_i(engine, verb, resource, namespace=namespace)


def test_pods_pass_the_restricted_pod_security_standard(deploy, namespace, kube, installation):
    engine = deploy.engine("secure", namespace)
    index = deploy.index("idx", namespace, router={})
    engine.wait_ready(1)
    index.wait_ready()
    # The namespace refuses pods that are not restricted.
    loose = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "loose", "namespace": namespace},
        "spec": {"containers": [{"name": "c", "image": installation.images["mockpod"]}]},
    }
    with pytest.raises(KubeError, match="violates PodSecurity"):
        kube.apply(loose)
    for pod in [*engine.all_pods(), *index.pods()]:
        (container,) = pod["spec"]["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
    (pod,) = engine.all_pods()
    assert pod["spec"]["automountServiceAccountToken"] is False
    operator = installation.operator_pod()
    (container,) = operator["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]


PROBE = """
import socket, sys
for port in map(int, sys.argv[2:]):
    s = socket.socket(); s.settimeout(3)
    try:
        s.connect((sys.argv[1], port)); print(port, "open")
    except OSError as e:
        print(port, "closed")
"""


def test_only_index_pods_reach_the_event_ports(deploy, namespace, kube, policy_gap):
    """Denial is only tested if the pod network enforces NetworkPolicy; admission is tested on every cluster."""
    engine = deploy.engine("guarded", namespace)
    index = deploy.index("idx", namespace)
    stranger = deploy.engine("stranger", namespace)
    (pod,) = engine.wait_ready(1)
    (other,) = stranger.wait_ready(1)
    index.wait_ready()
    index.wait_live([pod.name, other.name])  # the index may connect to port 5557
    policy = kube.get("NetworkPolicy", engine.workload, namespace)
    admitted = [rule for rule in policy["spec"]["ingress"] if any(p["port"] == 5557 for p in rule["ports"])]
    assert admitted
    assert all(rule.get("from") for rule in admitted)
    address = kube.get("Pod", pod.name, namespace)["status"]["podIP"]
    seen = kube.execute(other.name, namespace, ["python3", "-c", PROBE, address, "8000", "5557", "5558"]).split("\n")
    assert "8000 open" in seen
    if policy_gap:
        pytest.skip(f"skipped(capability): {policy_gap}")
    assert "5557 closed" in seen
    assert "5558 closed" in seen


def test_two_hundred_scale_calls_in_a_row_end_at_the_last_one(deploy, namespace, kube):
    engine = deploy.engine("jumpy", namespace, replicas=0)
    for number in range(200):
        engine.scale(number % 3)
    engine.scale(2)
    pods = engine.wait_ready(2)
    wait_while("there are two pods", lambda: len(engine.all_pods()) == 2, for_s=3.0)
    assert engine.pods() == pods


def test_an_engine_without_replicas_is_ready_and_empty(deploy, namespace, kube):
    deploy.engine("empty", namespace, replicas=0)
    resource = wait_condition(kube, "MockEngine", "empty", namespace, "Ready=True")
    assert resource["status"].get("replicas", 0) == 0
