"""The audit of what the index takes blocks for: adapters, cache salts, extra keys and tokens."""

import json

import pytest
from index_core_helpers import KINDS, new_core, put, stored
from service_helpers import BLOCK, DEADLINE_S, MODEL, ScriptedPublisher
from test_indexer_audit import Engine

from kvsync_events import BlockStored, decode_batch
from kvsync_indexer.audit import Auditor
from kvsync_indexer.audit.comparing import compare_blocks
from kvsync_indexer.audit.content import expected_keys, reports_context
from kvsync_indexer.audit.engine import EngineBlock
from kvsync_indexer.core import PythonCore
from kvsync_indexer.errors import AuditError
from kvsync_indexer.ingest import Ingest
from kvsync_indexer.publishers import PublisherSpec
from kvsync_indexer.sync import State
from kvsync_testkit.waiting import wait_until


def line(hashed, tokens, parent=None, **context):
    """A block as an engine that reports its context lists it."""
    return EngineBlock(
        hash=hashed, parent=parent, token_ids=list(tokens), **({"lora_name": None, "extra_keys": None} | context)
    )


def compared(core, *lines):
    return compare_blocks(core.dump("a"), lines, [], model="m", seed=core.seed)


CASES = {
    "base": ({}, {}),
    "adapter": ({"lora_name": "x", "lora_id": 1}, {"lora_name": "x", "extra_keys": ["x"]}),
    "adapter's number only": ({"lora_id": 1}, {"lora_name": "x", "lora_id": 1}),
    "salt": ({"extra_keys": [("s",), None]}, {"extra_keys": ["s"]}),
    "salt named": ({"extra_keys": [("s",), None]}, {"cache_salt": "s"}),
    "picture": ({"extra_keys": [(("pic", -3),), None]}, {"extra_keys": [["pic", -3]]}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_both_sides_agree_on_a_chain_in_each_context(kind, case):
    announced, listed = CASES[case]
    core = new_core(kind, seed=99)
    put(core, stored([1, 2], range(8), **announced))
    further = {name: listed[name] for name in ("lora_name", "lora_id") if name in listed}
    found = compared(core, line(2, range(4, 8), 1, **further), line(1, range(4), **listed))
    assert (found.slots, found.compared) == ([], 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", [case for case in CASES if case != "base"])
def test_an_index_that_was_not_told_of_the_context_differs(kind, case):
    core = new_core(kind)
    put(core, stored([1, 2], range(8)))
    found = compared(core, line(1, range(4), **CASES[case][1]), line(2, range(4, 8), 1))
    assert [(slot.other_content, slot.missing, slot.extra) for slot in found.slots] == [(2, 0, 0)]
    assert found.slots[0].other_content_examples == ["1", "2"]


def test_other_tokens_are_other_content():
    core = new_core("python")
    put(core, stored([1], range(4)))
    assert compared(core, line(1, range(1, 5))).slots[0].other_content == 1


def test_a_block_that_waits_is_never_matched_and_not_compared():
    core = new_core("python")
    put(core, stored([2], range(4, 8), parent=1))
    assert compared(core, line(1, range(4)), line(2, range(4, 8), 1, lora_name="x")).slots == []


def test_a_chain_that_begins_outside_of_the_table_or_nowhere_is_not_compared():
    assert expected_keys([line(2, range(4), 1), line(3, range(4), 2)], "m", 0) == {}
    assert expected_keys([line(2, range(4), 3), line(3, range(4), 2)], "m", 0) == {}


def test_a_lower_tier_has_the_content_of_the_device():
    core = new_core("python")
    put(core, stored([1], range(4), lora_name="x"), stored([1], [], size=0, medium="CPU"))
    host = line(1, range(4), lora_name="x")
    host.medium = "CPU"
    assert compared(core, line(1, range(4), lora_name="x"), host).slots == []
    host.lora_name = "y"
    (slot,) = compared(core, host).slots
    assert (slot.medium, slot.other_content) == ("CPU", 1)


def test_an_engine_that_names_only_hashes_reports_no_context():
    assert not reports_context(EngineBlock(hash=1))
    assert not reports_context(EngineBlock(hash=1, parent=None, lora_name=None))
    assert reports_context(line(1, range(4)))


def test_a_hash_that_is_none_is_refused():
    with pytest.raises(AuditError, match="neither a number nor hex"):
        compared(new_core("python"), EngineBlock(hash="xyz"))


class ForgetsContext(PythonCore):
    """Takes the blocks of every adapter and every salt for blocks of the base model."""

    def apply(self, publisher, payload):
        batch = decode_batch(payload)
        for event in batch.events:
            event.lora_name = event.lora_id = event.extra_keys = None
        return self.apply_batch(publisher, batch)

    def apply_many(self, publisher, payloads, budget=None):
        del budget
        done = [self.apply(publisher, payload) for payload in payloads]
        return done[-1]._replace(payloads=len(payloads))


class TellingEngine(Engine):
    """An engine that lists what its blocks hold."""

    content = ()

    def get(self, path):
        if path == "/debug/kv/digest" or not self.content:
            return super().get(path)
        return b"".join(json.dumps(row).encode() + b"\n" for row in self.content)


@pytest.fixture
def publisher():
    pub = ScriptedPublisher()
    engine = TellingEngine(pub)
    yield pub, engine
    engine.close()
    pub.close()


async def audited(pub, engine, core):
    """Store two blocks of an adapter and audit what the core makes of them, twice."""
    ingest, auditor = Ingest(core), None
    ingest.start()
    try:
        spec = PublisherSpec("pod", MODEL, pub.endpoint, replay_endpoint=pub.replay_endpoint, debug_url=engine.url)
        ingest.add(spec)
        link = wait_until("the publisher is known", lambda: ingest.link("pod"), deadline_s=DEADLINE_S)
        wait_until("the publisher is live", lambda: link.machine.state is State.LIVE, deadline_s=DEADLINE_S)
        pub.resident |= {1: 1, 2: 1}
        pub.publish([BlockStored([1, 2], None, list(range(2 * BLOCK)), BLOCK, lora_id=1, lora_name="x")])
        auditor = Auditor(ingest)
        first = (await auditor.audit(wait_quiet_s=10)).publishers[0]
        return first, (await auditor.audit()).publishers[0]
    finally:
        if auditor is not None:
            await auditor.close()
        ingest.stop()


def rows(*, lora):
    row = {"medium": "GPU", "group_idx": None, "rank": 0, "copies": 1, "lora_name": lora, "extra_keys": None}
    yield row | {"hash": 1, "parent": None, "token_ids": list(range(BLOCK))}
    yield row | {"hash": 2, "parent": 1, "token_ids": list(range(BLOCK, 2 * BLOCK))}


@pytest.mark.parametrize(("core", "verdict"), [(PythonCore, "equal"), (ForgetsContext, "different")])
async def test_equal_hashes_do_not_hide_a_lost_context(publisher, core, verdict):
    pub, engine = publisher
    engine.content = list(rows(lora="x"))
    for audit in await audited(pub, engine, core()):
        assert audit.verdict == verdict
        assert (audit.missing, audit.extra, audit.compared_content) == (0, 0, 2)
        assert audit.differences == audit.other_content == (0 if verdict == "equal" else 2)


async def test_an_engine_without_context_is_compared_by_its_hashes_and_the_answer_says_so(publisher):
    for audit in await audited(*publisher, PythonCore()):
        assert (audit.verdict, audit.compared_content) == ("equal", 0)
        assert audit.detail == "only hashes were compared: the engine does not report the context of its blocks"
