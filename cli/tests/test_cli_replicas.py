"""`kvsync audit --replicas`: positions that replicas share, the verdicts, and two real indexes on a mock engine."""

import json

import msgspec
import pytest
from cli_helpers import invoke, one_line

from kvsync.replicas.auditing import ReplicaAuditor
from kvsync.replicas.positions import KEPT, Positions
from kvsync_events import BlockStored, EventBatch, WireForm, encode_batch
from kvsync_indexer.api import AuditReport, DigestAnswer, DigestRow, PublisherAudit, PublisherRow
from kvsync_indexer.client import IndexClient, IndexRefusedError
from kvsync_indexer.core import make_core
from kvsync_indexer.snapshot import decode_snapshot, encode_snapshot, write_snapshot
from kvsync_testkit.processes import Index, MockEngine, stopping
from kvsync_testkit.waiting import wait_until


def said(position, digest="aa", state="live"):
    return DigestAnswer("p", [DigestRow(0, "GPU", 3, digest)], position, state)


def test_digests_are_compared_at_the_newest_position_that_all_share():
    positions = Positions(2)
    assert positions.latest() is None
    for replica, answer in [(0, said(1)), (0, said(2, "bb")), (1, said(1)), (1, said(3))]:
        positions.add(replica, answer)
    assert (positions.latest().position, positions.latest().equal) == (1, True)
    positions.add(1, said(2, "cc"))
    assert (positions.latest().position, positions.latest().equal) == (2, False)
    positions.add(1, said(2, "bb"))  # the later answer at one position counts
    assert positions.latest().equal
    assert positions.latest().blocks() == [3, 3]


def test_a_publisher_in_doubt_has_no_position_and_old_ones_are_forgotten():
    positions = Positions(2)
    positions.add(0, said(1))
    positions.add(1, said(1, state="gap"))
    assert positions.latest() is None
    for position in range(1, KEPT + 3):
        positions.add(0, said(position))
    positions.add(1, said(1))
    assert positions.latest() is None
    positions.add(1, said(KEPT))
    assert positions.latest().position == KEPT


class Replica:
    """An index that holds `digest` until it is resynchronised, and `mended` after that."""

    def __init__(self, url, digest, *, against="equal", mended="good", replay="tcp://x:1", refuses=0, follows=True):
        self.url, self.held, self.against, self.mended = url, digest, against, mended
        self.replay, self.refuses, self.follows = replay, refuses, follows
        self.resyncs = 0

    async def publishers(self):
        row = msgspec.convert({"name": "p", "state": "live", "replay_endpoint": self.replay}, PublisherRow)
        return [row] if self.follows else []

    async def digest(self, name):
        return said(7, self.held)

    async def audit(self, names, wait_s):
        return AuditReport([PublisherAudit(publisher=names[0], verdict=self.against)], 1, 3, 0, False)

    async def resync(self, name):
        if self.refuses:
            raise IndexRefusedError(self.url, self.refuses, "not now")
        self.resyncs += 1
        self.held = self.mended


async def audited(*replicas, **how):
    report = await ReplicaAuditor(replicas, wait_s=0, **how).audit()
    return report, report.publishers[0]


async def test_only_the_replica_that_the_engine_contradicts_is_resynchronised():
    good, bad = Replica("a", "good"), Replica("b", "bad", against="different")
    report, audit = await audited(good, bad)
    assert (audit.verdict, audit.position, report.equal, report.repaired) == ("repaired", 7, True, 1)
    assert (good.resyncs, bad.resyncs) == (0, 1)
    assert [one.resynced for one in audit.replicas] == [False, True]
    report, audit = await audited(good, bad)
    assert (audit.verdict, [one.against_engine for one in audit.replicas]) == ("equal", ["", ""])


@pytest.mark.parametrize(
    ("replica", "how", "why"),
    [
        ({"against": "no_ground_truth"}, {}, "contradicts none"),
        ({"against": "different"}, {"repair": False}, "the engine contradicts b"),
        ({"against": "different", "replay": None}, {}, "no replay endpoint"),
        ({"against": "different", "mended": "bad"}, {}, "still different after a resync"),
        ({"against": "different", "refuses": 409}, {}, "still different after a resync"),
        ({"follows": False}, {}, "not followed by b"),
    ],
)
async def test_a_difference_that_is_not_repaired_says_why(replica, how, why):
    report, audit = await audited(Replica("a", "good"), Replica("b", "bad", **replica), **how)
    assert (audit.verdict, report.equal, report.differences) == ("different", False, 1)
    assert why in audit.detail


async def test_a_replica_that_forbids_the_repair_ends_it():
    with pytest.raises(IndexRefusedError):
        await audited(Replica("a", "good"), Replica("b", "bad", against="different", refuses=401))


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--replicas", "a:1"), "at least two"),
        (("--replicas", "a:1,a:1"), "each of them once"),
        (("--replicas", "a:1,b:1", "--index", "c:1"), "either --index or --replicas"),
        (("--replicas", "a:1,ftp://b"), "scheme"),
        (("--no-repair",), "only for --replicas"),
    ],
)
def test_options_that_make_no_sense_are_refused(args, says):
    code, _, err = invoke("audit", *args)
    assert code == 2
    assert says in one_line(err)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A mock engine with a few prompts, and two indexes that follow it."""
    folder = tmp_path_factory.mktemp("replicas")
    engine = MockEngine().ready("/health")
    with stopping(engine):
        indexes = [Index(engine, folder=folder) for _ in range(2)]
        with stopping(*indexes):
            for index in indexes:
                index.live()
            for start in range(4):
                engine.complete(list(range(start * 100, start * 100 + 64)))
            for index in indexes:
                index.settled()
            yield engine, indexes


def test_two_indexes_agree_and_a_resync_changes_nothing(two):
    _, indexes = two
    urls = ",".join(index.url for index in indexes)
    code, out, err = invoke("audit", "--replicas", urls, "--json")
    report = json.loads(out)
    assert (code, err, report["compared"], report["equal"]) == (0, "", 1, True)
    assert report["publishers"][0]["replicas"][0]["blocks"] > 0
    before = indexes[0].rows("engine-0")
    resyncs = [index.ok("GET", "/v1/publishers/engine-0")["resyncs"] for index in indexes]
    row = indexes[0].ok("POST", "/v1/publishers/engine-0/resync")
    assert (row["name"], row["resyncs"]) == ("engine-0", resyncs[0] + 1)
    wait_until("the history is applied again", lambda: indexes[0].rows("engine-0") == before, deadline_s=30)
    code, out, _ = invoke("audit", "--replicas", urls)
    assert code == 0
    assert "1 of 1 compared, 0 repaired, 0 different" in out
    assert indexes[1].ok("GET", "/v1/publishers/engine-0")["resyncs"] == resyncs[1]
    assert indexes[0].ask("POST", "/v1/publishers/nobody/resync")[0] == 404


def with_a_block_too_many(snapshot):
    """The snapshot of an index that also holds a block of `engine-0` which its engine has never had."""
    header, state = decode_snapshot(snapshot)
    core = make_core("python")
    core.restore(state)
    event = BlockStored([4711], None, list(range(16)), 16, medium="GPU")
    core.apply("engine-0", encode_batch(EventBatch(0.0, [event], 0), WireForm.for_version("0.33.0")))
    return encode_snapshot(header, core.snapshot())


def test_a_replica_with_a_false_block_is_found_and_repaired(two, tmp_path):
    engine, (good, _) = two
    with IndexClient(good.url) as client:
        write_snapshot(tmp_path, with_a_block_too_many(client.snapshot()))
    wrong = Index(engine, folder=tmp_path, snapshot_dir=tmp_path)
    with stopping(wrong):
        wrong.live()
        urls = f"{good.url},{wrong.url}"
        code, out, _ = invoke("audit", "--replicas", urls, "--json", "--no-repair", "--wait", "1")
        (found,) = json.loads(out)["publishers"]
        assert (code, found["verdict"]) == (1, "different")
        assert [one["against_engine"] for one in found["replicas"]] == ["equal", "different"]
        code, out, _ = invoke("audit", "--replicas", urls, "--json", "--wait", "5")
        (found,) = json.loads(out)["publishers"]
        assert (code, found["verdict"]) == (0, "repaired")
        assert [one["resynced"] for one in found["replicas"]] == [False, True]
        assert wrong.rows("engine-0") == good.rows("engine-0") == engine.rows()
