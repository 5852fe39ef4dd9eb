"""The ingest thread against scripted publishers on real sockets."""

import pytest
from service_helpers import MODEL, ScriptedPublisher, wait_for

from kvsync_indexer.core import make_core
from kvsync_indexer.ingest import Ingest, SocketSettings
from kvsync_indexer.publishers import PublisherSpec
from kvsync_indexer.sync import State, SyncSettings
from kvsync_testkit.ports import free_port

SYNC = SyncSettings(
    stale_after_s=3.0,
    replay_timeout_s=0.3,
    verify_after_s=0.15,
    verify_idle_s=0.5,
    repair_s=0.2,
    quarantine_s=0.2,
    gap_grace_s=0.05,
)
SOCKETS = SocketSettings(heartbeat_s=0.2, heartbeat_timeout_s=0.6)


@pytest.fixture
def ingest():
    thread = Ingest(make_core("python"), sync=SYNC, sockets=SOCKETS)
    thread.start()
    yield thread
    assert thread.defects == 0
    thread.stop()
    assert not thread.running


@pytest.fixture
def publishers():
    made = []

    def make(*args, **kwargs):
        made.append(ScriptedPublisher(*args, **kwargs))
        return made[-1]

    yield make
    for each in made:
        if not each.context.closed:
            each.close()


def spec_of(publisher, name="pod-0", **changes):
    fields = {"endpoint": publisher.endpoint, "replay_endpoint": publisher.replay_endpoint}
    return PublisherSpec(name=name, model=MODEL, pod=name, **{**fields, **changes})


def equal(ingest, publisher, name="pod-0"):
    """Live, and the same set of blocks as the publisher has."""
    link = ingest.link(name)
    if link is None or link.machine.state is not State.LIVE:
        return False
    rows = ingest.core.digest(name)
    truth = publisher.digest()
    return sum(row.count for row in rows) == truth.count and (not rows or rows[0].digest_hex == truth.hex())


def wait_equal(ingest, publisher, name="pod-0"):
    def why():
        link = ingest.link(name)
        return link and link.machine.status(0.0)

    try:
        wait_for(lambda: equal(ingest, publisher, name))
    except AssertionError:
        raise AssertionError(f"not equal: {why()}, {ingest.core.digest(name)}, {publisher.digest()}") from None
    return ingest.link(name).machine


def test_late_join_then_live(ingest, publishers):
    pub = publishers()
    first = pub.store(3)
    ingest.add(spec_of(pub))
    machine = wait_equal(ingest, pub)
    assert not machine.incomplete
    pub.remove(first[2:])
    pub.store(2)
    wait_equal(ingest, pub)
    assert ingest.trusted == {MODEL: frozenset({"pod-0"})}
    assert machine.counters.gaps == 0


def test_lost_batches_are_replayed(ingest, publishers):
    pub = publishers()
    ingest.add(spec_of(pub))
    wait_equal(ingest, pub)
    pub.store(1)
    wait_equal(ingest, pub)
    pub.store(1, send=False)
    pub.store(1, send=False)
    pub.store(1)
    machine = wait_equal(ingest, pub)
    assert machine.counters.gaps == 1
    assert machine.counters.missed == 2
    assert machine.counters.clears == 0


def test_lost_tail_is_found_without_any_further_event(ingest, publishers):
    pub = publishers()
    pub.store(2)
    ingest.add(spec_of(pub))
    wait_equal(ingest, pub)
    pub.store(2, send=False)
    assert not equal(ingest, pub)
    wait_equal(ingest, pub)


def test_gap_beyond_retention_clears_and_marks_incomplete(ingest, publishers):
    pub = publishers(buffer_steps=4)
    ingest.add(spec_of(pub))
    wait_equal(ingest, pub)
    old = pub.store(5)
    wait_equal(ingest, pub)
    for _ in range(10):
        pub.store(1, send=False)
    pub.store(1)
    link = ingest.link("pod-0")
    wait_for(lambda: link.machine.counters.truncations == 1 and link.machine.state is State.LIVE)
    held = {row.hash for row in ingest.core.dump("pod-0")}
    assert held < set(pub.resident)
    assert not held & set(old)
    assert link.machine.incomplete
    pub.clear()
    wait_for(lambda: not link.machine.incomplete)
    wait_equal(ingest, pub)


def test_restart_at_the_same_address_when_idle_afterwards(ingest, publishers):
    pub = publishers()
    pub.store(5)
    pub.store(5)
    ingest.add(spec_of(pub))
    machine = wait_equal(ingest, pub)
    ports = pub.ports
    pub.close()
    wait_for(lambda: machine.state is State.CONNECTING)
    assert ingest.trusted == {}
    again = publishers(*ports)
    wait_equal(ingest, again)
    assert machine.counters.restarts == 1
    assert ingest.core.stats("pod-0").blocks == 0


def test_restart_that_overtook_the_last_number(ingest, publishers):
    pub = publishers()
    pub.store(5)
    ingest.add(spec_of(pub))
    machine = wait_equal(ingest, pub)
    ports = pub.ports
    pub.close()
    again = publishers(*ports)
    for _ in range(6):
        again.store(1)
    wait_equal(ingest, again)
    assert machine.counters.restarts == 1


def test_restart_without_replay(ingest, publishers):
    pub = publishers()
    ingest.add(spec_of(pub, replay_endpoint=None))
    link = wait_for(lambda: ingest.link("pod-0"))
    wait_for(lambda: link.machine.state is State.LIVE)
    pub.store(3)
    wait_equal(ingest, pub)
    assert not link.machine.incomplete
    ports = pub.ports
    pub.close()
    again = publishers(*ports)
    wait_for(lambda: ingest.core.stats("pod-0").blocks == 0 and link.machine.state is State.LIVE)
    again.store(2)
    wait_equal(ingest, again)


def test_malformed_payload_quarantines_then_recovers(ingest, publishers):
    bad, good = publishers(), publishers()
    ingest.add(spec_of(bad, "bad"))
    ingest.add(spec_of(good, "good"))
    bad.store(2)
    machine = wait_equal(ingest, bad, "bad")
    bad.publish([], payload=b"\xc1 no msgpack")
    wait_for(lambda: machine.state is State.QUARANTINED)
    good.store(2)
    wait_equal(ingest, good, "good")
    wait_for(lambda: machine.state is State.LIVE)
    assert machine.incomplete
    assert ingest.core.stats("bad").blocks == 0
    new = bad.store(2)
    wait_for(lambda: {row.hash for row in ingest.core.dump("bad")} == set(new))
    assert machine.counters.decode_errors == 2
    assert ingest.link("good").machine.counters.decode_errors == 0


@pytest.mark.parametrize("frames", [[b"topic", b"x"], [b"a"], [b"", b"1234567", b""], [b"", b"12345678", b"", b""]])
def test_malformed_frames_quarantine(ingest, publishers, frames):
    pub = publishers()
    pub.store(1)
    ingest.add(spec_of(pub))
    machine = wait_equal(ingest, pub)
    pub.send_raw(frames)
    wait_for(lambda: machine.counters.quarantines == 1)
    wait_equal(ingest, pub)
    assert machine.counters.decode_errors == 1


def test_silent_replay_server_does_not_stop_the_live_flow(ingest, publishers):
    pub = publishers()
    pub.silent = True
    pub.store(2)
    ingest.add(spec_of(pub))
    machine = wait_for(lambda: ingest.link("pod-0")).machine
    wait_for(lambda: machine.state is State.LIVE)
    assert machine.incomplete
    assert machine.counters.replay_failures >= SYNC.replay_attempts
    new = pub.store(2)
    wait_for(lambda: {row.hash for row in ingest.core.dump("pod-0")} == set(new))
    pub.silent = False
    wait_equal(ingest, pub)
    assert not machine.incomplete


def test_publisher_that_connects(ingest, publishers):
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    pub = publishers(connect=endpoint)
    ingest.add(spec_of(pub, bind=True))
    pub.store(2)
    wait_equal(ingest, pub)
    pub.store(2)
    wait_equal(ingest, pub)


def test_duplicates_change_nothing(ingest, publishers):
    pub = publishers()
    ingest.add(spec_of(pub))
    wait_equal(ingest, pub)
    stored = pub.store(2)
    pub.remove(stored[1:])
    pub.resend(0)
    pub.resend(1)
    pub.store(1)
    machine = wait_equal(ingest, pub)
    assert machine.counters.duplicates == 2
    assert machine.counters.restarts == 0


def test_new_epoch_fences_and_removal_is_final(ingest, publishers):
    pub = publishers()
    pub.store(2)
    ingest.add(spec_of(pub, epoch="uid-1/0"))
    machine = wait_equal(ingest, pub)
    ingest.add(spec_of(pub, epoch="uid-1/1"))
    wait_for(lambda: machine.counters.epochs == 1)
    wait_equal(ingest, pub)
    ingest.remove("pod-0")
    wait_for(lambda: ingest.core.publishers() == [])
    pub.store(1)
    assert ingest.trusted == {}
    assert ingest.core.publishers() == []


def test_not_ready_is_followed_and_not_trusted(ingest, publishers):
    pub = publishers()
    pub.store(2)
    ingest.add(spec_of(pub, ready=False))
    wait_equal(ingest, pub)
    assert ingest.trusted == {}
    ingest.add(spec_of(pub))
    wait_for(lambda: ingest.trusted == {MODEL: frozenset({"pod-0"})})


def test_stale_when_nothing_is_there(publishers):
    thread = Ingest(make_core("python"), sync=SyncSettings(stale_after_s=0.3), sockets=SOCKETS)
    thread.start()
    try:
        thread.add(PublisherSpec(name="p", model=MODEL, endpoint=f"tcp://127.0.0.1:{free_port()}"))
        wait_for(lambda: thread.link("p") and thread.link("p").machine.state is State.STALE)
    finally:
        thread.stop()
