"""Routing: policy `kv` is better than round robin, and traffic continues while the index is not available."""

import random

from e2e_engines import BLOCK, tokens_of
from e2e_router import BackgroundTraffic, Router

from kvsync_testkit.cluster import wait_until

GROUPS, ROUNDS = 12, 6
ROUTE_GONE_WITHIN_S = 15.0
"""T_del of invariant I10 for routes, in seconds."""


def shared_prefix_trace(seed=7):
    """Return prompts of 12 tenants, each with its own long prefix and short tails, in the same shuffled order."""
    prefixes = [tokens_of(("tenant", group), 20 * BLOCK) for group in range(GROUPS)]
    trace = [
        prefixes[group] + tokens_of(("tail", group, turn), 2 * BLOCK)
        for group in range(GROUPS)
        for turn in range(ROUNDS)
    ]
    random.Random(seed).shuffle(trace)
    return trace


def standalone_router(deploy, namespace, index_url, image, policy="kv"):
    """Deploy a stand-alone `kvsync-router`, which continues to run without the index."""
    name = "front"
    labels = {"app": name}
    container = {
        "name": "router",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["kvsync-router"],
        "args": ["--index-url", index_url, "--policy", policy, "--port", "8080"],
        "ports": [{"name": "router", "containerPort": 8080}],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }
    pod = {
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    meta = {"name": name, "namespace": namespace}
    ports = [{"name": "router", "port": 8080, "targetPort": "router"}]
    deploy.kube.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec})
    deploy.kube.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"selector": labels, "ports": ports}}
    )
    return Router(deploy.kube, namespace, name)


def test_kv_routing_beats_round_robin_on_the_same_trace(deploy, kube):
    shares = {}
    for policy in ("round_robin", "kv"):
        namespace = deploy.namespace("-" + policy.replace("_", "-"))
        engine = deploy.engine("fleet", namespace, replicas=3)
        index = deploy.index("idx", namespace, router={"policy": policy})
        pods = engine.wait_ready(3)
        index.wait_ready()
        index.wait_live([pod.name for pod in pods])
        router = Router(kube, namespace, "idx-router")
        router.wait_knows(3)
        tally = router.run("fleet", shared_prefix_trace(), workers=2)
        assert tally.failures() == []
        assert len(tally.outcomes) == GROUPS * ROUNDS
        assert set(tally.policies()) == {policy}, tally.outcomes[:3]
        assert len(tally.by_endpoint()) == 3, f"an endpoint got no traffic: {tally.by_endpoint()}"
        index.wait_agrees(pods)
        shares[policy] = tally.cached_share()
    assert shares["kv"] > 0.6, shares
    assert shares["kv"] > shares["round_robin"] + 0.15, shares


def test_traffic_continues_without_the_index_and_converges_when_it_returns(deploy, namespace, kube, installation):
    engine = deploy.engine("fleet", namespace, replicas=2)
    index = deploy.index("idx", namespace)
    pods = engine.wait_ready(2)
    index.wait_ready()
    index.wait_live([pod.name for pod in pods])
    router = standalone_router(
        deploy, namespace, f"http://idx-index.{namespace}.svc:8090", installation.images["indexer"]
    )
    trace = shared_prefix_trace()
    wait_until("the router routes by kv", lambda: router.complete("fleet", trace[0]).policy == "kv", deadline_s=60.0)

    with BackgroundTraffic(router, "fleet", trace) as traffic:
        wait_until("traffic flows", lambda: len(traffic.tally.outcomes) >= 10, deadline_s=30.0)
        index_spec = {"spec": {"replicas": 0}}
        kube.patch("PrefixIndex", index.name, namespace, index_spec)
        wait_until("the index has no pods", lambda: not index.pods(), deadline_s=60.0)
        mark = len(traffic.tally.outcomes)
        wait_until("traffic continues", lambda: len(traffic.tally.outcomes) >= mark + 20, deadline_s=30.0)
        during = list(traffic.tally.outcomes[mark:])
        kube.patch("PrefixIndex", index.name, namespace, {"spec": {"replicas": 1}})
        index.wait_ready()
        index.wait_live([pod.name for pod in pods])
        wait_until(
            "the router routes by kv again",
            lambda: traffic.tally.outcomes[-1].policy == "kv",
            deadline_s=30.0,
        )
    assert traffic.tally.failures() == [], "I13: no request fails because of the missing index"
    assert all(item.policy != "kv" for item in during[4:]), "the answers report the fallback policy"
    index.wait_agrees(pods)


def test_a_deleted_engine_pod_gets_no_more_traffic(deploy, namespace, kube):
    engine = deploy.engine("fleet", namespace, replicas=2)
    index = deploy.index("idx", namespace, router={"policy": "kv"})
    pods = engine.wait_ready(2)
    index.wait_ready()
    index.wait_live([pod.name for pod in pods])
    router = Router(kube, namespace, "idx-router")
    router.wait_knows(2)
    victim, survivor = pods
    tokens = tokens_of("warm on the victim", 12 * BLOCK)
    victim.complete(tokens, model="fleet")
    index.wait_agrees([victim])
    address = kube.get("Pod", victim.name, namespace)["status"]["podIP"]
    first = router.complete("fleet", tokens)
    assert first.status == 200
    assert victim.name in first.endpoint or address in first.endpoint

    with BackgroundTraffic(router, "fleet", [tokens]) as traffic:
        kube.delete("Pod", victim.name, namespace)
        wait_until(
            "the index has no publisher of the deleted pod",
            lambda: not index.publishers_of(victim.name),
            deadline_s=ROUTE_GONE_WITHIN_S,
        )

        def last_ten_go_elsewhere():
            last = traffic.tally.outcomes[-10:]
            routes = {outcome.endpoint.rsplit("/", 1)[-1] for outcome in last}
            assert len(last) == 10
            assert victim.name not in routes, routes
            return True

        wait_until("no request is routed to the deleted pod", last_ten_go_elsewhere, deadline_s=ROUTE_GONE_WITHIN_S)
        mark = len(traffic.tally.outcomes)
        wait_until("traffic continues", lambda: len(traffic.tally.outcomes) >= mark + 20, deadline_s=30.0)
    assert traffic.tally.failures() == [], "no request fails because of the deleted pod"
    assert victim.name not in {outcome.endpoint.rsplit("/", 1)[-1] for outcome in traffic.tally.outcomes[mark:]}
    assert survivor in engine.wait_ready(2)
