"""MultiPod: the index keeps the entries of several pods apart (invariant I4), and the best match is the right pod."""

from e2e_engines import BLOCK, tokens_of


def test_each_pods_entries_are_its_own_and_the_best_match_is_the_right_pod(deploy, namespace):
    engine = deploy.engine("trio", namespace, replicas=3)
    index = deploy.index("idx", namespace)
    pods = engine.wait_ready(3)
    index.wait_ready()
    index.wait_live([pod.name for pod in pods])

    shared = tokens_of("system prompt", 4 * BLOCK)
    own = {pod.name: shared + tokens_of(pod.name, 8 * BLOCK) for pod in pods}
    for pod in pods:
        pod.complete(own[pod.name], model="trio")
    counts = index.wait_agrees(pods)
    assert set(counts.values()) == {12}

    for pod in pods:
        everyone = index.matched("trio", own[pod.name])
        assert everyone == {other.name: 12 if other == pod else 4 for other in pods}
        assert index.match("trio", own[pod.name])[0]["pod"].endswith(pod.name), (
            "the pod with the longest match comes first"
        )

    # I4: the events of one pod do not change the entries of the others.
    before = {pod.name: index.blocks_of(pod.name) for pod in pods[1:]}
    pods[0].complete(tokens_of("only the first", 20 * BLOCK), model="trio")
    index.wait_agrees([pods[0]])
    assert {pod.name: index.blocks_of(pod.name) for pod in pods[1:]} == before


def test_ranks_of_one_pod_are_publishers_of_their_own(deploy, namespace):
    events = {"dataParallelSize": 2, "port": 5557, "replayPort": 5657}
    engine = deploy.engine("ranks", namespace, events=events)
    index = deploy.index("idx", namespace)
    (pod,) = engine.wait_ready(1)
    index.wait_ready()
    rows = index.wait_live([pod.name])
    assert sorted(row["rank"] for row in rows) == [0, 1]
    prompts = {rank: tokens_of(("rank", rank), 8 * BLOCK) for rank in (0, 1)}
    for rank, tokens in prompts.items():
        pod.complete(tokens, model="ranks", rank=rank)
    index.wait_agrees([pod])
    for rank, tokens in prompts.items():
        hits = {hit["rank"]: hit["matched_blocks"] for hit in index.match("ranks", tokens) if hit["matched_blocks"]}
        assert hits == {rank: 8}
