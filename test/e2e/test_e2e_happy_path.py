"""HappyPath: the requests to one pod become events on real sockets, and the index equals the block table of the pod."""

from e2e_engines import BLOCK, tokens_of

from kvsync_testkit.cluster import wait_until


def test_requests_become_events_and_the_index_equals_the_pods_own_table(deploy, namespace):
    engine = deploy.engine("one", namespace)
    index = deploy.index("idx", namespace)
    (pod,) = engine.wait_ready(1)
    index.wait_ready()
    (row,) = index.wait_live([pod.name])
    assert (row["model"], row["rank"], row["gaps"], row["decode_errors"]) == ("one", 0, 0, 0)
    assert pod.blocks() == {}

    prompts = [tokens_of(("happy", number), 10 * BLOCK) for number in range(8)]
    for tokens in prompts:
        pod.complete(tokens, model="one", max_tokens=2 * BLOCK)
    counts = index.wait_agrees([pod])
    # 10 blocks of the prompt, and one or two blocks of generated tokens
    assert 8 * 11 <= counts[pod.name] <= 8 * 12

    assert index.matched("one", prompts[3]) == {pod.name: 10}
    assert index.matched("one", prompts[3][: 4 * BLOCK + 5]) == {pod.name: 4}
    diverging = prompts[3][: 6 * BLOCK] + tokens_of("other", 4 * BLOCK)
    assert index.matched("one", diverging) == {pod.name: 6}
    assert index.matched("one", tokens_of("never sent", 10 * BLOCK)) == {}
    (best,) = [hit for hit in index.match("one", prompts[0]) if hit["matched_blocks"]]
    assert (best["matched_tokens"], best["state"], best["tiers"]) == (160, "live", {"GPU": 10})


def test_evicted_and_cleared_blocks_leave_the_index(deploy, namespace):
    # 63 usable blocks cannot hold eight prompts of ten blocks.
    engine = deploy.engine(
        "small", namespace, cache={"numGpuBlocks": 64}, scheduler={"maxModelLen": 512, "maxNumSeqs": 8}
    )
    index = deploy.index("idx", namespace)
    (pod,) = engine.wait_ready(1)
    index.wait_ready()
    index.wait_live([pod.name])
    prompts = [tokens_of(("evict", number), 10 * BLOCK) for number in range(8)]
    for tokens in prompts:
        pod.complete(tokens, model="small")
    counts = index.wait_agrees([pod])
    assert 0 < counts[pod.name] <= 63
    assert index.matched("small", prompts[-1]) == {pod.name: 10}
    assert index.matched("small", prompts[0]) == {}, "the oldest prompt was evicted"


def test_text_prompts_are_matched_by_the_engines_own_tokenizer(deploy, namespace):
    engine = deploy.engine("talker", namespace)
    index = deploy.index("idx", namespace)
    (pod,) = engine.wait_ready(1)
    index.wait_ready()
    index.wait_live([pod.name])
    text = " ".join(f"word{number} follows the one before it" for number in range(60))
    pod.call("POST", "/v1/completions", {"model": "talker", "prompt": text, "max_tokens": 1})
    index.wait_agrees([pod])
    count = pod.call("POST", "/tokenize", {"model": "talker", "prompt": text})["count"]
    (hit,) = index.call("POST", "/v1/match", {"model": "talker", "prompt": text})["matches"]
    assert hit["matched_blocks"] == count // BLOCK > 0


def test_an_engine_named_by_hand_is_followed_like_one_that_was_found(deploy, namespace, kube):
    engine = deploy.engine("known", namespace)
    (pod,) = engine.wait_ready(1)
    address = kube.get("Pod", pod.name, namespace)["status"]["podIP"]
    publisher = {
        "name": "by-hand",
        "model": "known",
        "endpoint": f"tcp://{address}:5557",
        "replayEndpoint": f"tcp://{address}:5558",
        "httpUrl": f"http://{address}:8000",
    }
    index = deploy.index(
        "idx", namespace, selector={"matchLabels": {"kvsync.dev/kv-events": "never"}}, publishers=[publisher]
    )
    index.wait_ready()
    index.wait_live(["by-hand"])
    tokens = tokens_of("static", 5 * BLOCK)
    pod.complete(tokens, model="known")
    pod.wait_quiet()
    wait_until("it agrees", lambda: index.blocks_of("by-hand") == pod.blocks(), deadline_s=20.0)
    assert index.matched("known", tokens) == {"by-hand": 5}


def test_engine_pods_carry_the_contract_of_aibrix_and_llm_d(deploy, namespace, kube):
    engine = deploy.engine("labelled", namespace, model="org/labelled-7b")
    engine.wait_ready(1)
    (pod,) = engine.all_pods()
    labels = pod["metadata"]["labels"]
    assert labels["model.aibrix.ai/kv-events-enabled"] == "true"
    assert labels["model.aibrix.ai/name"] == "org-labelled-7b"
    assert labels["llm-d.ai/inference-serving"] == "true"
    assert labels["kvsync.dev/kv-events"] == "true"
    (container,) = pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert (ports["http"], ports["events"], ports["replay"]) == (8000, 5557, 5558)
    service = kube.get("Service", engine.workload, namespace)
    assert {port["port"] for port in service["spec"]["ports"]} >= {8000, 5557, 5558}
