"""Publishers that announce the removal of each copy of a block, and such as announce only that of the last one."""

from dataclasses import replace

import pytest
from index_core_helpers import KINDS, new_core, payload, put, removed, stored
from service_helpers import DEADLINE_S, MODEL, ScriptedPublisher
from test_indexer_audit import Engine
from test_indexer_sync_follower import Rig
from test_indexer_sync_follower import removed as gone
from test_indexer_sync_follower import stored as held

from kvsync_events import NEWEST_VERSION, BlockStored, removals_of
from kvsync_indexer.api import PredictionReport
from kvsync_indexer.audit import Auditor
from kvsync_indexer.core import UnknownPublisherError, make_core
from kvsync_indexer.ingest import Ingest
from kvsync_indexer.prediction import ENOUGH_REQUESTS, Predictions
from kvsync_indexer.publishers import PublisherSpec
from kvsync_indexer.publishers_file import parse_publishers
from kvsync_indexer.service.views import publisher_row
from kvsync_indexer.sync import State
from kvsync_indexer.sync.removals import RemovalRule
from kvsync_testkit.waiting import wait_until

CHAIN = [stored([1, 2], range(8)), stored([2], range(4, 8), parent=1)]
"""Two blocks, the second of which has two copies."""


def copies(core):
    return {(row.hash, row.medium): row.copies for row in core.dump("a")}


# -- the cores -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("last_copy_only", "left"), [(False, {1: 1, 2: 1}), (True, {1: 1})])
def test_what_one_removal_takes(kind, last_copy_only, left):
    core = new_core(kind)
    core.set_last_copy_only("a", last_copy_only)
    put(core, *CHAIN)
    put(core, removed(2))
    assert {hashed: count for (hashed, _), count in copies(core).items()} == left


@pytest.mark.parametrize("kind", KINDS)
def test_copies_that_were_counted_before_the_rule_changed_go_with_the_next_removal(kind):
    core = new_core(kind)
    put(core, *CHAIN)
    assert copies(core)[2, "GPU"] == 2
    core.set_last_copy_only("a", True)
    put(core, removed(2))
    assert (2, "GPU") not in copies(core)


@pytest.mark.parametrize("kind", KINDS)
def test_lower_tiers_count_as_ever(kind):
    core = new_core(kind)
    core.set_last_copy_only("a", True)
    put(core, stored([1, 2], range(8), medium="CPU"), stored([2], range(4, 8), parent=1, medium="CPU"))
    put(core, removed(2, medium="CPU"))
    assert copies(core) == {(1, "CPU"): 1, (2, "CPU"): 1}


@pytest.mark.parametrize("kind", KINDS)
def test_the_rule_is_that_of_one_publisher_and_survives_a_clear_but_no_snapshot(kind):
    core = new_core(kind, "a", "b")
    with pytest.raises(UnknownPublisherError):
        core.set_last_copy_only("c", True)
    core.set_last_copy_only("a", True)
    core.clear_publisher("a")
    for name in ("a", "b"):
        core.apply(name, payload(*CHAIN))
    assert [max(row.copies for row in core.dump(name)) for name in ("a", "b")] == [1, 2]
    core.restore(core.snapshot())
    core.apply("a", payload(*CHAIN))
    assert copies(core)[2, "GPU"] == 2


# -- the rule --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.9.0", "0.20.2", NEWEST_VERSION, f"{NEWEST_VERSION}.post1"])
def test_every_known_version_announces_each_copy(version):
    assert removals_of(version) == "each_copy"


@pytest.mark.parametrize("version", [None, "", "0.34.0", "1.0.0", "dev", "0.5.23"])
def test_of_other_versions_nothing_is_known(version):
    assert removals_of(version) is None


def rule(option=None, version=None, evidence=None):
    made = RemovalRule()
    made.know(option, version)
    noticed = evidence is not None and made.notice(evidence)
    return made.removals, noticed, made.note


def test_the_option_counts_before_the_version_and_the_version_before_evidence():
    assert rule() == ("each_copy", False, "")
    assert rule(evidence="e") == ("last_copy", True, "takes removals for those of last copies: e")
    assert rule(version="0.33.0", evidence="e") == ("each_copy", False, "")
    assert rule("each_copy", evidence="e") == ("each_copy", False, "")
    assert rule("last_copy", "0.33.0") == ("last_copy", False, "takes removals for those of last copies: as configured")


def test_the_publishers_file_has_the_option():
    text = "- {name: a, model: m, endpoint: 'tcp://h:1', removals: %s}"
    assert [parse_publishers(text % each, "f")[0].removals for each in ("auto", "each_copy", "last_copy")] == [
        None,
        "each_copy",
        "last_copy",
    ]


# -- the follower ----------------------------------------------------------------------------------------------------


def test_evidence_drops_the_blocks_and_has_the_history_replayed_by_the_other_rule():
    rig = Rig().live()
    history = [(0, held(1)), (1, held(1)), (2, gone(1)), (3, held(2))]  # block 1 has two copies, one of them announced
    rig.receive(*history)
    assert rig.held() == {1, 2}
    rig.follower.false_hits("an audit found 1 block that the engine no longer holds", rig.now)
    assert (rig.held(), rig.machine.incomplete) == (set(), True)
    assert "an audit found 1 block" in rig.machine.reason
    attempt = rig.sockets.calls[-1][1]
    assert rig.sockets.calls[-1] == ("request_replay", attempt, 0)
    for seq, data in history:
        rig.follower.replay_item(attempt, seq, data, rig.now)
    rig.follower.replay_end(attempt, rig.now)
    assert (rig.held(), rig.machine.incomplete, rig.machine.state) == ({2}, False, State.LIVE)


def test_the_option_is_known_before_the_first_block_and_drops_nothing():
    rig = Rig()
    rig.follower.engine_is(None, "last_copy", rig.now)
    rig.live()
    rig.receive((0, held(1)), (1, held(1)), (2, gone(1)))
    assert rig.held() == set()
    assert rig.machine.counters.resyncs == 0


def test_a_version_whose_rule_is_known_is_believed():
    rig = Rig().live()
    rig.follower.engine_is("0.33.0", None, rig.now)
    rig.receive((0, held(1)))
    rig.follower.false_hits("predictions", rig.now)
    assert rig.held() == {1}


def test_predictions_show_false_hits_only_in_number():
    predictions = Predictions()
    for _ in range(ENOUGH_REQUESTS):
        assert not predictions.record(PredictionReport("p", 64, 64)).shows_false_hits
    for _ in range(ENOUGH_REQUESTS):
        totals = predictions.record(PredictionReport("p", 64, 16))
    assert totals.shows_false_hits
    assert not Predictions().record(PredictionReport("p", 64, 0)).shows_false_hits


# -- the service -----------------------------------------------------------------------------------------------------


class LastCopyPublisher(ScriptedPublisher):
    """An engine of tomorrow: a block with two copies, of which one is evicted without an event."""

    def act(self):
        (hashed,) = self.store(1)
        self.resident[hashed] += 1
        self.publish_again(hashed)
        self.remove([hashed])

    def publish_again(self, hashed):
        self.publish([BlockStored([hashed], None, [0, 1, 2, 3], 4)])


@pytest.fixture
def engine():
    pub = LastCopyPublisher()
    made = Engine(pub)
    yield made
    made.close()
    pub.close()


def start(engine, **options):
    ingest = Ingest(make_core("python"))
    ingest.start()
    pub = engine.pub
    spec = PublisherSpec("pod", MODEL, pub.endpoint, replay_endpoint=pub.replay_endpoint, debug_url=engine.url)
    ingest.add(replace(spec, **options))
    link = wait_until("the publisher is known", lambda: ingest.link("pod"), deadline_s=DEADLINE_S)
    wait_until("the publisher is live", lambda: link.machine.state is State.LIVE, deadline_s=DEADLINE_S)
    return ingest, link


async def test_an_audit_notices_and_the_next_one_finds_both_sides_equal(engine):
    ingest, link = start(engine)
    auditor = Auditor(ingest)
    try:
        engine.pub.act()
        first = (await auditor.audit(wait_quiet_s=10)).publishers[0]
        assert (first.verdict, first.missing, first.extra) == ("different", 0, 1)
        row = publisher_row(link, ingest.core, ingest._monotonic())
        assert row.removals == "last_copy"
        assert "an audit found 1 blocks that the engine no longer holds" in row.reason
        wait_until("the history came again", lambda: not link.machine.incomplete, deadline_s=DEADLINE_S)
        second = (await auditor.audit(wait_quiet_s=DEADLINE_S)).publishers[0]
        assert second.verdict == "equal"
    finally:
        await auditor.close()
        ingest.stop()


async def test_with_the_option_there_is_nothing_to_notice(engine):
    ingest, link = start(engine, removals="last_copy")
    auditor = Auditor(ingest)
    try:
        engine.pub.act()
        audit = (await auditor.audit(wait_quiet_s=10)).publishers[0]
        assert (audit.verdict, link.machine.counters.resyncs) == ("equal", 0)
    finally:
        await auditor.close()
        ingest.stop()
