"""vLLM's own publisher class of each version feeds a live index, which must hold exactly what was announced."""

import socket
import time
import zlib

import pytest
from interop_live import Index, consecutive_free_ports, post, wait_for
from interop_versions import VERSIONS
from vllm_classes import load_kv_events

from kvsync_events import AllBlocksCleared, BlockRemoved, BlockStored, WireForm, decode_batch
from kvsync_testkit.checks import check_agreement, check_no_false_positive, parse_rows
from kvsync_testkit.faults import ModelProcess, Workload


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    with Index(tmp_path_factory.mktemp("index")) as running:
        yield running


SMALL = Workload()
ROOMY = Workload(capacity=4096, chains=40, clears=0.0)
"""Nothing is evicted, so what was missed stays missing."""


class Announcer:
    """A model engine whose events are sent by vLLM's ZmqEventPublisher."""

    def __init__(self, version, endpoint, replay, *, rank=0, buffer_steps=10_000, seed="1", workload=SMALL):
        self.theirs = load_kv_events(version)
        self.form = WireForm.for_version(version)
        self.process = ModelProcess(
            "p", salt=zlib.crc32(seed.encode()) & 0xFFFF, seed=seed, workload=workload, buffer_steps=4
        )
        options = {"endpoint": endpoint, "replay_endpoint": replay, "buffer_steps": buffer_steps}
        if self.form.batch_rank:
            options["data_parallel_rank"] = rank
        self.publisher = self.theirs.ZmqEventPublisher(**options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.publisher.shutdown()

    def publish(self, count):
        """Announce `count` steps; returns the last sequence number."""
        for _ in range(count):
            step = self.process.step(time.time())
            batch = self.theirs.KVEventBatch(
                ts=time.time(), events=list(map(self._theirs, decode_batch(step.payload).events))
            )
            self.publisher.publish(batch)
        return self.process.next_seq - 1

    def _theirs(self, event):
        if isinstance(event, AllBlocksCleared):
            return self.theirs.AllBlocksCleared()
        kind = {BlockStored: self.theirs.BlockStored, BlockRemoved: self.theirs.BlockRemoved}[type(event)]
        return kind(**{name: getattr(event, name) for name in kind.__struct_fields__})


def ports():
    base = consecutive_free_ports(4)
    return base, base + 2


def refused(port):
    """Whether nothing listens on the port; libzmq closes sockets in the background."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def follow(index, name, events, replay, **more):
    entry = {"name": name, "model": "m", "endpoint": f"tcp://127.0.0.1:{events}", **more}
    if replay is not None:
        entry["replay_endpoint"] = f"tcp://127.0.0.1:{replay}"
    index.follow(**entry)


def agree(index, name, announcer):
    """Check that the index is live at the last batch and holds exactly what was announced."""
    row = index.wait_live(name, announcer.process.next_seq - 1)
    assert not row["incomplete"], row
    assert not check_agreement(name, announcer.process.truth, parse_rows(index.lines(name)))
    return row


@pytest.mark.parametrize("version", VERSIONS)
def test_late_join_then_live(version, index):
    events, replay = ports()
    name = f"late-{version}"
    with Announcer(version, f"tcp://*:{events}", f"tcp://*:{replay}") as announcer:
        announcer.publish(60)
        follow(index, name, events, replay)
        agree(index, name, announcer)
        announcer.publish(60)
        agree(index, name, announcer)


@pytest.mark.parametrize("version", [version for version in VERSIONS if version != "0.9.0"])
def test_two_ranks(version, index):
    events, replay = ports()
    endpoints = f"tcp://*:{events}", f"tcp://*:{replay}"
    with Announcer(version, *endpoints, rank=0) as zero, Announcer(version, *endpoints, rank=1, seed="2") as one:
        zero.publish(30)
        one.publish(20)
        for rank in (0, 1):
            follow(index, f"ranks-{version}/{rank}", events + rank, replay + rank)
        zero.publish(10)
        one.publish(25)
        for rank, announcer in enumerate((zero, one)):
            agree(index, f"ranks-{version}/{rank}", announcer)
            assert index.status(f"ranks-{version}/{rank}")["rank"] == rank


@pytest.mark.parametrize("version", VERSIONS)
def test_restart_at_the_same_address(version, index):
    events, replay = ports()
    name = f"restart-{version}"
    with Announcer(version, f"tcp://*:{events}", f"tcp://*:{replay}", seed="a") as first:
        first.publish(50)
        follow(index, name, events, replay)
        agree(index, name, first)
    wait_for(lambda: refused(events) and refused(replay), "the first one's ports are free again")
    with Announcer(version, f"tcp://*:{events}", f"tcp://*:{replay}", seed="b") as second:
        # more than the first, so that the numbers exceed the old ones before the index can have connected
        second.publish(70)
        row = agree(index, name, second)
        assert row["state"] == "live"


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
def test_a_buffer_overrun_is_reported_and_never_claims_too_much(version, index):
    events, replay = ports()
    name = f"overrun-{version}"
    with Announcer(version, f"tcp://*:{events}", f"tcp://*:{replay}", buffer_steps=8, workload=ROOMY) as announcer:
        announcer.publish(60)
        follow(index, name, events, replay)
        row = index.wait_live(name, 59)
        assert row["incomplete"], row
        held = parse_rows(index.lines(name))
        assert held
        assert not check_no_false_positive(name, announcer.process.truth, held)


@pytest.mark.parametrize("version", [version for version in VERSIONS if version != "0.9.0"])
def test_endpoint_that_the_index_must_bind(version, index):
    """vLLM connects to an endpoint without a wildcard, so the index has to bind it."""
    events, replay = ports()
    name = f"bound-{version}"
    follow(index, name, events, replay, bind=True)
    wait_for(lambda: index.status(name), f"{name} is known")
    with Announcer(version, f"tcp://127.0.0.1:{events}", f"tcp://*:{replay}") as announcer:
        announcer.publish(40)
        agree(index, name, announcer)
        announcer.publish(40)
        agree(index, name, announcer)


def test_without_a_replay_endpoint_live_events_count_and_the_index_is_incomplete(index):
    events, _ = ports()
    version, name = VERSIONS[-1], "no-replay"
    with Announcer(version, f"tcp://*:{events}", None, workload=ROOMY) as announcer:
        announcer.publish(10)
        follow(index, name, events, None)
        wait_for(lambda: (index.status(name) or {}).get("state") == "live", f"{name} live")
        seq = announcer.publish(30)
        row = index.wait_live(name, seq)
        assert row["incomplete"]
        assert not check_no_false_positive(name, announcer.process.truth, parse_rows(index.lines(name)))


def test_a_match_finds_what_vllm_announced(index):
    events, replay = ports()
    with Announcer(VERSIONS[-1], f"tcp://*:{events}", f"tcp://*:{replay}") as announcer:
        announcer.publish(40)
        follow(index, "match", events, replay)
        agree(index, "match", announcer)
        resident = {row.key for row in announcer.process.truth}
        for number in range(announcer.process.workload.chains):
            chain = announcer.process.chain(number, announcer.process.workload.longest)
            expected = 0
            while expected < len(chain) and chain[expected][0] in resident:
                expected += 1
            tokens = [token for _, part in chain for token in part]
            answer = post(f"{index.url}/v1/match", {"model": "m", "token_ids": tokens})
            found = [one for one in answer["matches"] if one["publisher"] == "match"]
            assert (found[0]["matched_blocks"] if found else 0) == expected
