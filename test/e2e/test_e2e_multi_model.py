"""MultiModel: the same tokens with different models, adapters or salts are different prefixes."""

import pytest
from e2e_engines import BLOCK, tokens_of
from e2e_router import Router


def test_two_models_in_two_namespaces_share_no_hit(deploy):
    left, right = deploy.namespace("-left"), deploy.namespace("-right")
    engines = {"alpha": deploy.engine("alpha", left), "beta": deploy.engine("beta", right)}
    index = deploy.index("idx", left, namespaces=[left, right], router={"policy": "kv"})
    pods = {model: engine.wait_ready(1)[0] for model, engine in engines.items()}
    index.wait_ready()
    index.wait_live([pod.name for pod in pods.values()])

    tokens = tokens_of("the same in both", 9 * BLOCK)
    pods["alpha"].complete(tokens, model="alpha")
    index.wait_agrees(pods.values())
    assert index.matched("alpha", tokens) == {pods["alpha"].name: 9}
    assert index.matched("beta", tokens) == {}, "beta never saw these tokens"

    pods["beta"].complete(tokens[: 5 * BLOCK], model="beta")
    index.wait_agrees(pods.values())
    assert index.matched("alpha", tokens) == {pods["alpha"].name: 9}
    assert index.matched("beta", tokens) == {pods["beta"].name: 5}
    assert index.matched("gamma", tokens) == {}

    # The removal of one model removes nothing of the other.
    engines["alpha"].scale(0)
    engines["alpha"].wait_ready(0)
    index.wait_live([pods["beta"].name])
    assert index.matched("beta", tokens) == {pods["beta"].name: 5}
    assert index.matched("alpha", tokens) == {}


def test_requests_are_routed_to_pods_of_their_own_model(deploy, kube):
    left, right = deploy.namespace("-left"), deploy.namespace("-right")
    engines = {
        "alpha": deploy.engine("alpha", left, replicas=2),
        "beta": deploy.engine("beta", right, replicas=2),
    }
    index = deploy.index("idx", left, namespaces=[left, right], router={"policy": "kv"})
    pods = {model: engine.wait_ready(2) for model, engine in engines.items()}
    index.wait_ready()
    index.wait_live([pod.name for group in pods.values() for pod in group])
    router = Router(kube, left, "idx-router")
    router.wait_knows(4)
    addresses = {
        model: {kube.get("Pod", pod.name, pod.namespace)["status"]["podIP"]: pod for pod in group}
        for model, group in pods.items()
    }
    tokens = tokens_of("both models get this", 8 * BLOCK)
    warm = pods["alpha"][1]
    warm.complete(tokens, model="alpha")
    index.wait_agrees([warm])

    for model in ("alpha", "beta", "alpha", "beta"):
        outcome = router.complete(model, tokens)
        assert outcome.status == 200, outcome
        served_by = [
            pod for ip, pod in addresses[model].items() if ip in outcome.endpoint or pod.name in outcome.endpoint
        ]
        assert served_by, f"{model} went to {outcome.endpoint}"
        if model == "alpha":
            assert served_by == [warm]
            assert outcome.matched_tokens == 8 * BLOCK
    assert router.complete("gamma", tokens).status in (400, 404), "a model nobody serves is refused"


def test_adapters_and_salts_are_kept_apart(deploy, namespace):
    loras = [{"name": "lora-a"}, {"name": "lora-b"}]
    engine = deploy.engine("base", namespace, model_spec={"loras": loras})
    index = deploy.index("idx", namespace)
    (pod,) = engine.wait_ready(1)
    index.wait_ready()
    index.wait_live([pod.name])
    tokens = tokens_of("one prompt, many contexts", 6 * BLOCK)

    contexts = {
        "base": {},
        "lora-a": {"lora": "lora-a"},
        "lora-b": {"lora": "lora-b"},
        "salt": {"cache_salt": "tenant-1"},
    }

    def seen():
        return {name: index.matched("base", tokens, **context) for name, context in contexts.items()}

    assert set(map(bool, seen().values())) == {False}
    pod.complete(tokens, model="lora-a")
    index.wait_agrees([pod])
    assert seen() == {"base": {}, "lora-a": {pod.name: 6}, "lora-b": {}, "salt": {}}
    pod.complete(tokens, model="base", cache_salt="tenant-1")
    index.wait_agrees([pod])
    assert seen() == {"base": {}, "lora-a": {pod.name: 6}, "lora-b": {}, "salt": {pod.name: 6}}
    assert index.matched("base", tokens, cache_salt="tenant-2") == {}
    pod.complete(tokens, model="base")
    counts = index.wait_agrees([pod])
    assert seen()["base"] == {pod.name: 6}
    assert counts[pod.name] == 18, "three contexts have three chains of blocks"


@pytest.mark.parametrize("version", ["0.11.0", "0.23.0", "0.26.0"])
def test_older_wire_forms_are_followed_too(deploy, namespace, version):
    engine = deploy.engine("older", namespace, events={"wireVersion": version})
    index = deploy.index("idx", namespace)
    (pod,) = engine.wait_ready(1)
    index.wait_ready()
    index.wait_live([pod.name])
    tokens = tokens_of(version, 7 * BLOCK)
    pod.complete(tokens, model="older")
    index.wait_agrees([pod], groups=version >= "0.20")
    assert index.call("POST", "/v1/audit")["equal"], "the audit of the index agrees"
    assert index.matched("older", tokens) == {pod.name: 7}
