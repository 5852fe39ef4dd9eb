"""Lower tiers keep what a block's hash covers besides its tokens: adapters, salts and multimodal inputs."""

import pytest

from kvsync_events import EventBatch, WireForm, encode_batch
from kvsync_indexer.core import Context, make_core
from kvsync_mockpod.engine import LoraRef, MMFeature, TierConfig
from kvsync_testkit.scheduler import SchedulerBuilder, make_request, prompt_tokens

LORA, OTHER_LORA = LoraRef("ad1", 7, "adapters/ad1"), LoraRef("ad2", 8, "adapters/ad2")
PROMPT = 120
CONTEXTS = {
    "lora": ({"lora": LORA}, {"lora": "ad1"}),
    "salt": ({"cache_salt": "tenant"}, {"cache_salt": "tenant"}),
    "both": ({"lora": LORA, "cache_salt": "tenant"}, {"lora": "ad1", "cache_salt": "tenant"}),
    "picture": (
        {"mm_features": (MMFeature("img", 4, 40),)},
        {"extra_keys": ((("img", 4),), (("img", -12),), (("img", -28),), None, None, None, None)},
    ),
}
STRANGERS = ({}, {"lora": "ad2"}, {"cache_salt": "rival"})
FORM = WireForm.for_version("0.33.0")


def small(**tiers):
    values = {"host_blocks": 64, "instant": True} | tiers
    return SchedulerBuilder(
        num_gpu_blocks=17, max_model_len=256, max_num_batched_tokens=256, max_loras=2, tiers=TierConfig.build(**values)
    ).build()


def serve(scheduler, rid, stream, **values):
    scheduler.add(make_request(rid, n=PROMPT, max_tokens=1, stream=stream, **values))
    scheduler.until_idle()
    return scheduler.outcomes[rid].cached_tokens


def evicted(name, **tiers):
    """A scheduler whose device has lost the blocks of one prompt, which a lower tier still has."""
    scheduler = small(**tiers)
    serve(scheduler, "first", 1, **CONTEXTS[name][0])
    for stream in (11, 12, 13):
        serve(scheduler, f"other{stream}", stream)
    return scheduler


class Index:
    """An index core that has read all events of a scheduler."""

    def __init__(self, scheduler):
        self.core = make_core("python")
        self.core.add_publisher("pod", "model")
        self.read(scheduler.events)

    def read(self, events):
        applied = self.core.apply("pod", encode_batch(EventBatch(ts=1.0, events=events, data_parallel_rank=0), FORM))
        assert applied.refused == applied.unknown_removed == 0

    def blocks(self, stream=1, **context):
        found = self.core.match(Context("model", **context), prompt_tokens(stream, PROMPT))
        return max((row.blocks for row in found), default=0)


@pytest.mark.parametrize("tiers", [{}, {"host_blocks": 8, "disk_blocks": 64}], ids=["host", "disk"])
@pytest.mark.parametrize("name", CONTEXTS)
def test_an_index_matches_offloaded_blocks_for_their_own_context_only(name, tiers):
    scheduler = evicted(name, **tiers)
    assert not any(b.medium == "GPU" and b.token_ids == first_tokens() for b in scheduler.engine.blocks())
    index = Index(scheduler)
    assert index.blocks(**CONTEXTS[name][1]) == 7
    for stranger in STRANGERS:
        assert index.blocks(**stranger) == 0, stranger


def first_tokens():
    return tuple(prompt_tokens(1, 16))


@pytest.mark.parametrize("name", CONTEXTS)
def test_the_announcement_after_a_reset_keeps_the_context(name):
    scheduler = evicted(name)
    assert scheduler.engine.reset_prefix_cache()
    before = len(scheduler.events)
    serve(scheduler, "next", 20)
    index = Index(scheduler)
    assert type(scheduler.events[before]).__name__ == "AllBlocksCleared"
    assert index.blocks(**CONTEXTS[name][1]) == 7
    for stranger in STRANGERS:
        assert index.blocks(**stranger) == 0, stranger


@pytest.mark.parametrize("name", CONTEXTS)
def test_a_swap_in_serves_its_own_context_only(name):
    own = CONTEXTS[name][0]
    for stranger in ({}, {"lora": OTHER_LORA}, {"cache_salt": "rival"}, {"mm_features": (MMFeature("cat", 4, 40),)}):
        assert serve(evicted(name), "stranger", 1, **stranger) == 0
    scheduler = evicted(name)
    assert serve(scheduler, "own", 1, **own) == 112
    assert scheduler.engine.statistics().tiers.host_hits > 0


def test_events_and_dumps_name_the_context():
    scheduler = evicted("both")
    lower = [event for event in scheduler.events if getattr(event, "medium", None) == "CPU" and event.lora_id]
    assert {(event.lora_id, event.lora_name) for event in lower} == {(7, "ad1")}
    keys = [key for event in lower for key in event.extra_keys]
    assert sorted(keys) == [("ad1",)] * 6 + [("ad1", "tenant")]
    plain = [event for event in scheduler.events if getattr(event, "medium", None) == "CPU" and not event.lora_id]
    assert plain
    assert {event.extra_keys for event in plain} == {None}
    dumped = {(b.lora_name, b.extra_keys) for b in scheduler.engine.blocks() if b.medium == "CPU"}
    assert dumped == {("ad1", ("ad1", "tenant")), ("ad1", ("ad1",)), (None, None)}


def test_a_block_that_comes_back_and_leaves_again_keeps_its_context():
    scheduler = evicted("salt")
    assert serve(scheduler, "again", 1, cache_salt="tenant") == 112
    for stream in (21, 22, 23):
        serve(scheduler, f"other{stream}", stream)
    index = Index(scheduler)
    assert (index.blocks(cache_salt="tenant"), index.blocks()) == (7, 0)
