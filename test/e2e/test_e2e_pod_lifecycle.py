"""PodLifecycle: pods are created, deleted and replaced; the index follows, and the entries of other pods persist."""

from e2e_engines import BLOCK, tokens_of

from kvsync_testkit.cluster import wait_until, wait_while

GONE_WITHIN_S = 15.0
"""T_del of invariant I10 in seconds: from the deletion until no entry and no route is left, with termination grace."""


def fill(pods, model, blocks=6):
    """Send a different prompt to each pod and return the prompts by pod name."""
    prompts = {pod.name: tokens_of(pod.name, blocks * BLOCK) for pod in pods}
    for pod in pods:
        pod.complete(prompts[pod.name], model=model)
    return prompts


def test_a_pod_that_publishes_at_once_is_followed_from_its_first_block(deploy, namespace):
    index = deploy.index("idx", namespace)
    index.wait_ready()
    engine = deploy.engine("eager", namespace)
    (pod,) = engine.wait_ready(1)
    # The requests do not wait for the index, so it must learn by replay what it missed.
    prompts = [tokens_of(("eager", number), 6 * BLOCK) for number in range(6)]
    for tokens in prompts:
        pod.complete(tokens, model="eager")
    index.wait_live([pod.name])
    index.wait_agrees([pod])
    (row,) = index.publishers()
    assert not row["incomplete"], "the replay began at the first batch"
    assert index.matched("eager", prompts[0]) == {pod.name: 6}


def test_entries_follow_scaling_and_survivors_keep_theirs(deploy, namespace):
    engine = deploy.engine("flex", namespace)
    index = deploy.index("idx", namespace)
    (first,) = engine.wait_ready(1)
    index.wait_ready()
    index.wait_live([first.name])
    prompts = fill([first], "flex")
    index.wait_agrees([first])

    engine.scale(3)
    pods = engine.wait_ready(3)
    assert first in pods
    index.wait_live([pod.name for pod in pods])
    assert index.matched("flex", prompts[first.name]) == {first.name: 6}, "the entries of the remaining pod persist"
    prompts |= fill([pod for pod in pods if pod != first], "flex")
    index.wait_agrees(pods)

    engine.scale(1)
    (survivor,) = engine.wait_ready(1)
    index.wait_live([survivor.name], deadline_s=GONE_WITHIN_S)
    for name, tokens in prompts.items():
        assert index.matched("flex", tokens) == ({name: 6} if name == survivor.name else {})
    index.wait_agrees([survivor])

    engine.scale(0)
    engine.wait_ready(0)
    wait_until("the index is empty", lambda: index.publishers() == [], deadline_s=GONE_WITHIN_S)


def test_a_deleted_pods_entries_and_routes_go_and_its_replacement_is_new(deploy, namespace, kube):
    engine = deploy.engine("mortal", namespace, replicas=2)
    index = deploy.index("idx", namespace)
    pods = engine.wait_ready(2)
    index.wait_ready()
    rows = index.wait_live([pod.name for pod in pods])
    epochs = {row["epoch"] for row in rows}
    prompts = fill(pods, "mortal")
    index.wait_agrees(pods)
    victim, survivor = pods

    kube.delete("Pod", victim.name, namespace)
    wait_until(
        "the deleted pod has no entry and no route",
        lambda: not index.publishers_of(victim.name) and index.matched("mortal", prompts[victim.name]) == {},
        deadline_s=GONE_WITHIN_S,
    )
    assert index.matched("mortal", prompts[survivor.name]) == {survivor.name: 6}

    replaced = engine.wait_ready(2)
    (fresh,) = [pod for pod in replaced if pod != survivor]
    assert fresh.name != victim.name
    index.wait_live([fresh.name, survivor.name])
    index.wait_agrees([fresh, survivor])
    (row,) = index.publishers_of(fresh.name)
    assert row["epoch"] not in epochs
    assert index.blocks_of(fresh.name) == {}, "the new pod has no blocks of the old one"
    # A late frame must not add the deleted pod again.
    wait_while("the deleted pod has no entry", lambda: not index.publishers_of(victim.name), for_s=3.0)


def test_a_restarted_container_is_a_new_epoch_and_its_old_blocks_go(deploy, namespace):
    engine = deploy.engine("phoenix", namespace)
    index = deploy.index("idx", namespace)
    (pod,) = engine.wait_ready(1)
    index.wait_ready()
    (before,) = index.wait_live([pod.name])
    prompts = fill([pod], "phoenix")
    index.wait_agrees([pod])

    pod.end_process()
    wait_until("the container restarted", lambda: pod.restarts() == 1, deadline_s=60.0)
    (again,) = engine.wait_ready(1)
    assert again == pod
    wait_until(
        "the old blocks are gone",
        lambda: index.matched("phoenix", prompts[pod.name]) == {},
        deadline_s=GONE_WITHIN_S,
    )
    index.wait_live([pod.name])
    index.wait_agrees([pod])
    (after,) = index.publishers()
    assert after["epoch"] != before["epoch"]
    pod.complete(tokens_of("second life", 5 * BLOCK), model="phoenix")
    index.wait_agrees([pod])
