"""Snapshots: the file, and resuming from it or from a peer with real sockets."""

import contextlib
import hashlib
import struct

import pytest
from service_helpers import DEADLINE_S, MODEL, ScriptedPublisher

from kvsync_indexer.config import IndexerConfig
from kvsync_indexer.errors import ConfigError, SnapshotFileError
from kvsync_indexer.service.service import IndexService
from kvsync_indexer.snapshot import (
    FILE_NAME,
    SnapshotHeader,
    StreamPoint,
    decode_snapshot,
    encode_snapshot,
    read_snapshot,
    write_snapshot,
)
from kvsync_indexer.sync import State
from kvsync_testkit.waiting import until, wait_until

POINT = StreamPoint(
    name="p", model="m", epoch=None, next_seq=5, base_seq=0, incomplete=False, tail=[(4, (1 << 64) - 1)]
)
HEADER = SnapshotHeader(created=1.5, core="python", publishers=[POINT])


def test_round_trip(tmp_path):
    data = encode_snapshot(HEADER, b"core bytes")
    assert read_snapshot(tmp_path) is None
    assert write_snapshot(tmp_path, data) == tmp_path / FILE_NAME
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    assert decode_snapshot(read_snapshot(tmp_path)) == (HEADER, b"core bytes")


def test_any_damage_is_refused():
    data = encode_snapshot(HEADER, b"core bytes")
    for cut in (0, 10, len(data) - 1):
        with pytest.raises(SnapshotFileError):
            decode_snapshot(data[:cut])
    with pytest.raises(SnapshotFileError):
        decode_snapshot(data + b"x")
    for at in range(len(data)):
        with pytest.raises(SnapshotFileError):
            decode_snapshot(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def test_a_header_that_nests_deep_is_refused_in_one_line():
    header = b'{"created":' + b"[" * 200_000 + b"}"
    body = struct.pack("<8sIQQ", b"KVSYSNAP", 1, len(header), 0) + header
    with pytest.raises(SnapshotFileError, match="unusable header") as caught:
        decode_snapshot(body + hashlib.sha256(body).digest())
    assert "\n" not in str(caught.value)


@contextlib.asynccontextmanager
async def running(tmp_path, pubs, snapshots="snap", **more):
    """An index over `pubs` (name: publisher, or (publisher, fields))."""
    entries = []
    for name, pub in pubs.items():
        pub, fields = pub if isinstance(pub, tuple) else (pub, {})
        entry = {"name": name, "model": MODEL, "endpoint": pub.endpoint, "replay_endpoint": pub.replay_endpoint}
        entries.append({**entry, **fields})
    path = tmp_path / "publishers.yaml"
    path.write_text(repr(entries).replace("None", "null"))
    config = {"publishers": path, "core": "python", "snapshot_dir": tmp_path / snapshots, **more}
    service = IndexService(IndexerConfig.parse(config))
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


def live(service, name="p"):
    link = service.ingest.link(name)
    return link is not None and link.machine.state is State.LIVE


def held(service, name="p"):
    return {row.hash for row in service.core.dump(name)}


@pytest.fixture
def pub():
    made = ScriptedPublisher(buffer_steps=4)
    for _ in range(20):
        made.store(2)
    yield made
    if not made.context.closed:
        made.close()


async def seed(tmp_path, pub, **fields):
    """An index that followed `pub` from its first batch and has left a snapshot."""
    early = ScriptedPublisher(*()) if pub is None else pub
    async with running(tmp_path, {"p": (early, fields)}) as service:
        wait_until("the publisher is live", lambda: live(service), deadline_s=DEADLINE_S)
        for _ in range(8):
            early.store(2)
        wait_until(
            "every batch is applied",
            lambda: service.ingest.link("p").machine.next_seq == early.seq,
            deadline_s=DEADLINE_S,
        )
        before = held(service)
    assert (tmp_path / "snap" / FILE_NAME).exists()
    return before


async def test_resumes_where_replay_alone_could_not(tmp_path, pub):
    before = await seed(tmp_path, pub)
    assert len(before) > 8
    pub.store(1)
    async with running(tmp_path, {"p": pub}) as service:
        wait_until(
            "live, and every batch is applied",
            lambda: live(service) and service.ingest.link("p").machine.next_seq == pub.seq,
            deadline_s=DEADLINE_S,
        )
        assert held(service) > before
        assert service.ingest.link("p").machine.counters.clears == 0


async def test_a_publisher_that_restarted_meanwhile_is_cleared(tmp_path, pub):
    await seed(tmp_path, pub)
    ports = pub.ports
    pub.close()
    again = ScriptedPublisher(*ports)
    for _ in range(40):  # overtakes the saved sequence
        again.store(1)
    try:
        async with running(tmp_path, {"p": again}) as service:
            wait_until(
                "live, with the blocks of the new process",
                lambda: live(service) and held(service) == set(again.resident),
                deadline_s=DEADLINE_S,
            )
            assert service.ingest.link("p").machine.counters.restarts == 1
    finally:
        again.close()


async def test_another_epoch_is_cleared_before_anything_is_asked(tmp_path, pub):
    before = await seed(tmp_path, pub, epoch="uid/0")
    async with running(tmp_path, {"p": (pub, {"epoch": "uid/1"})}) as service:
        wait_until("the publisher is live", lambda: live(service), deadline_s=DEADLINE_S)
        assert not held(service) & before - set(pub.resident)
        assert service.ingest.link("p").machine.incomplete
        assert len(held(service)) == 8  # the four batches that replay still had


async def test_a_publisher_that_left_is_forgotten(tmp_path, pub):
    await seed(tmp_path, pub)
    other = ScriptedPublisher()
    try:
        async with running(tmp_path, {"q": other}) as service:
            wait_until("publisher q is live", lambda: live(service, "q"), deadline_s=DEADLINE_S)
            await until("publisher p is dropped", lambda: service.core.publishers() == ["q"], deadline_s=DEADLINE_S)
    finally:
        other.close()


async def test_a_damaged_snapshot_is_one_line_and_an_empty_start(tmp_path, pub, capsys):
    await seed(tmp_path, pub)
    path = tmp_path / "snap" / FILE_NAME
    path.write_bytes(path.read_bytes()[:-5] + b"?????")
    capsys.readouterr()
    async with running(tmp_path, {"p": pub}) as service:
        wait_until("the publisher is live", lambda: live(service), deadline_s=DEADLINE_S)
        assert len(held(service)) == 8
    lines = [line for line in capsys.readouterr().out.splitlines() if "snapshot_refused" in line]
    assert len(lines) == 1
    assert "checksum" in lines[0]


async def test_nothing_new_writes_nothing_new(tmp_path, pub):
    async with running(tmp_path, {"p": pub}) as service:
        wait_until("the publisher is live", lambda: live(service), deadline_s=DEADLINE_S)
        await service.snapshots.write()
        await service.snapshots.write()
        assert service.snapshots.written == 1
        pub.store(1)
        wait_until(
            "every batch is applied",
            lambda: service.ingest.link("p").machine.next_seq == pub.seq,
            deadline_s=DEADLINE_S,
        )
        await service.snapshots.write()
        assert service.snapshots.written == 2


async def test_an_unreachable_peer_is_an_empty_start(tmp_path, pub):
    async with running(tmp_path, {"p": pub}, bootstrap_from="http://127.0.0.1:9") as service:
        wait_until("the publisher is live", lambda: live(service), deadline_s=DEADLINE_S)
        assert len(held(service)) == 8


def test_a_directory_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "publishers.yaml").write_text("[]")
    config = {"publishers": tmp_path / "publishers.yaml", "snapshot_dir": tmp_path / "file"}
    with pytest.raises(ConfigError, match="--snapshot-dir"):
        IndexService(IndexerConfig.parse(config))
