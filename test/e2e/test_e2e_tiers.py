"""Tiers, adapters and salts at once: each context keeps its own blocks while they move from the device to the host."""

import pytest
from e2e_engines import BLOCK, tokens_of
from e2e_router import Router

DEVICE_BLOCKS = 40
PROMPT_BLOCKS = 6
CONTEXTS = {
    "base": ({}, {}),
    "lora-a": ({"model": "lora-a"}, {"lora": "lora-a"}),
    "lora-b": ({"model": "lora-b"}, {"lora": "lora-b"}),
    "salt": ({"cache_salt": "tenant-1"}, {"cache_salt": "tenant-1"}),
    "lora-a with salt": ({"model": "lora-a", "cache_salt": "tenant-1"}, {"lora": "lora-a", "cache_salt": "tenant-1"}),
}
"""By name: what a request to the engine says, and what a query of the index says."""


@pytest.fixture
def system(deploy, namespace):
    """An engine with two tiers and two adapters, and an index with a router that follows it."""
    engine = deploy.engine(
        "tiered",
        namespace,
        model_spec={"loras": [{"name": "lora-a"}, {"name": "lora-b"}]},
        cache={"numGpuBlocks": DEVICE_BLOCKS, "hostOffload": {"blocks": 512, "transfers": "Instant"}},
        scheduler={"maxModelLen": (DEVICE_BLOCKS - 1) * BLOCK},
    )
    index = deploy.index("idx", namespace, router={"policy": "kv"})
    (pod,) = engine.wait_ready(1)
    index.wait_ready()
    index.wait_live([pod.name])
    return index, pod


def push_out(pod):
    """Fill the device with other blocks, so that everything older is only in the host tier."""
    for number in range(3):
        pod.complete(tokens_of(("filler", number), (DEVICE_BLOCKS - 4) // 2 * BLOCK), model="tiered")


def tiers_of(index, pod, tokens, query):
    """Matched blocks by tier; empty if nothing matches."""
    return {
        tier: blocks
        for row in index.match("tiered", tokens, **query)
        if row["pod"].endswith(pod.name)
        for tier, blocks in row["tiers"].items()
    }


def test_contexts_stay_apart_on_the_device_and_on_the_host(system):
    index, pod = system
    tokens = tokens_of("one prompt in every context", PROMPT_BLOCKS * BLOCK)
    done = []
    for name, (request, _) in CONTEXTS.items():
        pod.complete(tokens, **({"model": "tiered"} | request))
        done.append(name)
        index.wait_agrees([pod])
        matched = {other: index.matched("tiered", tokens, **query) for other, (_, query) in CONTEXTS.items()}
        assert matched == {other: {pod.name: PROMPT_BLOCKS} if other in done else {} for other in CONTEXTS}
    assert index.matched("tiered", tokens, cache_salt="tenant-2") == {}

    push_out(pod)
    index.wait_agrees([pod])
    assert {medium for _, medium, _ in pod.blocks()} == {"GPU", "CPU"}
    for name, (_, query) in CONTEXTS.items():
        assert tiers_of(index, pod, tokens, query) == {"CPU": PROMPT_BLOCKS}, f"{name} was only on the device"
    assert index.call("POST", "/v1/audit")["equal"]


def test_a_router_promises_what_the_host_tier_gives(system, kube):
    index, pod = system
    router = Router(kube, index.namespace, "idx-router")
    router.wait_knows(1)
    tokens = tokens_of("promised and kept", PROMPT_BLOCKS * BLOCK)
    for request, _ in CONTEXTS.values():
        fields = {"model": "tiered"} | request
        assert router.complete(fields.pop("model"), tokens, **fields).status == 200
    push_out(pod)
    index.wait_agrees([pod])
    for name, (request, _) in CONTEXTS.items():
        fields = {"model": "tiered"} | request
        outcome = router.complete(fields.pop("model"), [*tokens, 7], **fields)
        assert outcome.status == 200
        assert (outcome.matched_tokens, outcome.cached_tokens) == (PROMPT_BLOCKS * BLOCK, PROMPT_BLOCKS * BLOCK), name
        index.wait_agrees([pod])
