"""A new replica takes the snapshot of a running index: two processes, and peers whose snapshot cannot be used."""

import contextlib
import json

import pytest
from aiohttp import web
from service_helpers import BLOCK, DEADLINE_S, MODEL, ScriptedPublisher
from structlog.testing import capture_logs

from kvsync_indexer.config import IndexerConfig
from kvsync_indexer.core import make_core
from kvsync_indexer.service.service import IndexService
from kvsync_indexer.snapshot import SnapshotHeader, encode_snapshot
from kvsync_testkit.ports import free_port
from kvsync_testkit.processes import Index, stopping
from kvsync_testkit.waiting import wait_until

KEPT = 4
"""Batches in the publishers' replay buffers: far fewer than were sent, so a replay alone gives no equal index."""


def entries(pubs):
    rows = [("pod-0", pubs[0]), ("pod-1", pubs[1])]
    return [
        {"name": name, "model": MODEL, "endpoint": pub.endpoint, "replay_endpoint": pub.replay_endpoint}
        for name, pub in rows
    ]


@pytest.fixture
def pubs():
    made = [ScriptedPublisher(buffer_steps=KEPT) for _ in range(2)]
    yield made
    for each in made:
        each.close()


def chain(pub, length, start=0):
    """A chain sent block by block, a batch each; its hashes."""
    hashes = []
    for at in range(length):
        tokens = list(range(start + at * BLOCK, start + (at + 1) * BLOCK))
        hashes += pub.store(1, tokens, hashes[-1] if hashes else None)
    return hashes


def rows(index):
    return {row["name"]: row for row in index.ok("GET", "/v1/publishers")["publishers"]}


def applied(index, sent):
    """Wait until the index has applied the batches with these sequence numbers."""

    def last():
        taken = rows(index)
        return [taken[name]["last_seq"] for name in ("pod-0", "pod-1")] == sent

    wait_until("every batch is applied", last, deadline_s=DEADLINE_S)


def answers(index):
    """What it says of three prompts, and every block it holds."""
    prompts = [list(range(n * BLOCK)) for n in (1, 7, 40)]
    said = [index.ok("POST", "/v1/match", {"model": MODEL, "token_ids": prompt}) for prompt in prompts]
    for answer in said:
        for row in answer["matches"]:
            del row["age_s"]
    blocks = [sorted(index.ok("GET", f"/v1/publishers/{name}/blocks").splitlines()) for name in ("pod-0", "pod-1")]
    return said, blocks


@pytest.mark.parametrize("cores", [("auto", "python"), ("python", "auto")])
def test_a_new_replica_answers_as_the_old_one_and_goes_on(tmp_path, pubs, cores):
    old = Index(*entries(pubs), folder=tmp_path, core=cores[0])
    with stopping(old):
        old.live()
        hashes = chain(pubs[0], 30)
        pubs[0].remove(hashes[20:])
        chain(pubs[1], 12)
        sent = [pub.seq - 1 for pub in pubs]
        applied(old, sent)
        before = answers(old)
        assert [row["matched_blocks"] for row in before[0][2]["matches"]] == [20, 12]
        new = Index(*entries(pubs), folder=tmp_path, core=cores[1], bootstrap_from=old.url)
        with stopping(new):
            new.live()
            assert answers(new) == before
            taken = rows(new)
            for name, seq in zip(("pod-0", "pod-1"), sent, strict=True):
                row = taken[name]
                assert (row["last_seq"], row["batches"], row["gaps"], row["incomplete"]) == (seq, 0, 0, False)
            pubs[0].remove(hashes[10:20])
            chain(pubs[1], 3, start=10_000)
            sent = [pub.seq - 1 for pub in pubs]
            for index in (old, new):
                applied(index, sent)
            assert answers(new) == answers(old) != before
            after = rows(new)
            for name in ("pod-0", "pod-1"):
                counted = {key: after[name][key] for key in ("gaps", "resyncs", "restarts", "truncations")}
                assert not any(counted.values()), counted
            assert [after[name]["batches"] for name in ("pod-0", "pod-1")] == [1, 3]


def snapshot(*, seed=0, version=None, core_version=None):
    """A peer's snapshot with one publisher; the versions are the byte behind each magic."""
    core = make_core("python", seed=seed)
    core.add_publisher("pod-0", MODEL)
    header = SnapshotHeader(created=1.0, core="python", publishers=[])
    return with_version(encode_snapshot(header, with_version(core.snapshot(), core_version)), version)


def with_version(data, version):
    return data if version is None else data[:8] + bytes([version]) + data[9:]


GOOD = snapshot(seed=7)
BAD = {
    "damaged": (GOOD[:40] + bytes([GOOD[40] ^ 1]) + GOOD[41:], "checksum"),
    "cut off": (GOOD[:-3], "cut off"),
    "of another version": (snapshot(version=9), "version 9"),
    "of another core version": (snapshot(core_version=9), "version"),
    "no snapshot at all": (b"<html>" * 20, "not a snapshot"),
    "empty": (b"", "too few"),
}


@contextlib.asynccontextmanager
async def peer(data, status=200):
    async def give(_request):
        return web.Response(body=data, status=status)

    app = web.Application()
    app.router.add_get("/v1/snapshot", give)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def started_from(url, tmp_path, pubs):
    """(what a replica logged about the peer, what it then holds of pod-0)."""
    path = tmp_path / "publishers.yaml"
    path.write_text(json.dumps(entries(pubs)))
    config = IndexerConfig.parse({"publishers": path, "core": "python", "bootstrap_from": url})
    with capture_logs() as logs:
        service = IndexService(config)
        await service.start()
        try:
            wait_until("both publishers are live", lambda: service.readiness().live == 2, deadline_s=DEADLINE_S)
            held = sum(1 for _ in service.core.dump("pod-0"))
        finally:
            await service.stop()
    said = [line for line in logs if line["event"] in ("snapshot_refused", "snapshot_restored", "bootstrap_failed")]
    return said, held


@pytest.mark.parametrize("kind", BAD)
async def test_a_snapshot_that_cannot_be_used_is_one_line_and_an_empty_start(kind, tmp_path, pubs):
    data, why = BAD[kind]
    chain(pubs[0], 10)
    async with peer(data) as url:
        said, held = await started_from(url, tmp_path, pubs)
    assert [line["event"] for line in said] == ["snapshot_refused"]
    assert (said[0]["log_level"], said[0]["origin"]) == ("error", url)
    assert why in said[0]["problem"]
    assert "\n" not in said[0]["problem"]
    assert held == KEPT


async def test_a_peer_that_has_none_is_one_line(tmp_path, pubs):
    async with peer(b"", status=503) as url:
        said, held = await started_from(url, tmp_path, pubs)
    assert [line["event"] for line in said] == ["bootstrap_failed"]
    assert "503" in said[0]["problem"]
    assert held == 0


async def test_the_good_one_of_these_is_taken(tmp_path, pubs):
    async with peer(GOOD) as url:
        said, _ = await started_from(url, tmp_path, pubs)
    assert [line["event"] for line in said] == ["snapshot_restored"]
