"""Faults on a pod's real sockets: what arrives, what replay repairs, and what the ground-truth log reports."""

import asyncio
import json

import pytest
from mockpod_helpers import (
    Mirror,
    make_config,
    reachable,
    replay,
    replay_frames,
    start_pod,
    subscriber,
    truth,
)

from kvsync_events import REPLAY_END, DecodeError, decode_batch, parse_replay_reply
from kvsync_mockpod.errors import ConfigError
from kvsync_mockpod.latency import build_latency
from kvsync_mockpod.pod import Environment, Pod
from kvsync_testkit.waiting import until


async def put(pod, *faults, seed=1):
    async with pod.client.put(pod.url + "/debug/faults", json={"seed": seed, "faults": list(faults)}) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def heal(pod):
    async with pod.client.delete(pod.url + "/debug/faults") as answer:
        assert answer.status == 200
        return await answer.json()


async def send(pod, count=1, first=0):
    """Publish `count` batches, one after the other: each prompt is one block."""
    for number in range(first, first + count):
        tokens = [100_000 + number * 16 + position for position in range(16)]
        status, _ = await pod.post("/v1/completions", {"prompt": tokens, "max_tokens": 1})
        assert status == 200


async def faults_logged(pod):
    return [(row["fault"], row["seq"]) for row in await pod.lines("/debug/kv/log") if row["kind"] == "fault"]


async def arriving(reader, count):
    return [(await reader.receive()) for _ in range(count)]


def seqs(frames):
    """Sequence numbers of replayed frames up to the end marker."""
    items = [parse_replay_reply(each) for each in frames]
    assert items[-1] is REPLAY_END
    return [item.seq for item in items[:-1]]


async def test_a_dropped_batch_leaves_a_gap_that_replay_fills():
    async with start_pod() as pod, subscriber(pod) as reader:
        await put(pod, {"kind": "drop", "at": [1]}, {"kind": "drop", "at": [3], "in_replay": False})
        await send(pod, 5)
        assert [frame.seq for frame in await arriving(reader, 3)] == [0, 2, 4]
        assert [item.seq for item in await replay(pod.pod.ranks[0].publisher.replay_endpoint, 0)] == [0, 1, 2, 4]
        assert await faults_logged(pod) == [("drop", 1), ("drop", 3)]
        assert len(await truth(pod)) == 5
        shown = await heal(pod)
        assert shown["counts"] == {"drop": 2}
        assert 'kvsync_mockpod_faults_total{kind="drop"} 2.0' in await pod.text("/metrics")


async def test_a_batch_dropped_before_numbering_appears_in_the_ground_truth_only():
    async with start_pod() as pod, subscriber(pod) as reader:
        await put(pod, {"kind": "drop_unnumbered", "at": [2]})
        await send(pod, 5)
        frames = await arriving(reader, 4)
        assert [frame.seq for frame in frames] == [0, 1, 2, 3]
        seen = Mirror().apply_payloads([frame.payload for frame in frames])
        assert len(seen.copies) == 4
        assert len(await truth(pod)) == 5
        log = await pod.lines("/debug/kv/log")
        assert [(row["kind"], row["n"]) for row in log[2:5]] == [("stored", 2), ("fault", 3), ("stored", 3)]


async def test_duplicates_and_reordering_send_the_same_bytes():
    async with start_pod() as pod, subscriber(pod) as reader:
        await put(pod, {"kind": "duplicate", "at": [0], "times": 2}, {"kind": "reorder", "at": [2], "window": 1})
        await send(pod, 5)
        frames = await arriving(reader, 7)
        assert [frame.seq for frame in frames] == [0, 0, 0, 1, 3, 2, 4]
        assert len({frame.payload for frame in frames}) == 5
        again = await replay(pod.pod.ranks[0].publisher.replay_endpoint, 0)
        assert [item.seq for item in again] == [0, 1, 2, 3, 4]


async def test_a_reordered_batch_is_sent_after_a_while_without_others():
    async with start_pod() as pod, subscriber(pod) as reader:
        await put(pod, {"kind": "reorder", "at": [0], "window": 5, "hold_ms": 100})
        await send(pod, 1)
        assert (await reader.receive()).seq == 0
        await pod.quiet()
        assert await faults_logged(pod) == [("reorder", 0)]


async def test_delay_and_stall_hold_back_in_order():
    async with start_pod() as pod, subscriber(pod) as reader:
        loop = asyncio.get_running_loop()
        await put(pod, {"kind": "delay", "at": [0], "ms": 150}, {"kind": "stall", "at": [3], "ms": 300})
        started = loop.time()
        await send(pod, 5)
        frames = await arriving(reader, 3)
        assert loop.time() - started > 0.14
        frames += await arriving(reader, 2)
        assert loop.time() - started > 0.29
        assert [frame.seq for frame in frames] == [0, 1, 2, 3, 4]


async def test_healing_sends_what_was_held_back():
    async with start_pod() as pod, subscriber(pod) as reader:
        await put(pod, {"kind": "stall", "ms": 3_600_000})
        await send(pod, 2)
        assert (await pod.get("/debug/kv/digest"))[1]["quiet"] is False
        await heal(pod)
        assert [frame.seq for frame in await arriving(reader, 2)] == [0, 1]
        await send(pod, 1, first=2)
        assert (await reader.receive()).seq == 2


async def test_damaged_payloads_heal_by_replay_unless_the_buffer_has_them_too():
    async with start_pod() as pod, subscriber(pod) as reader:
        await put(
            pod,
            {"kind": "truncate", "at": [0]},
            {"kind": "truncate", "at": [1], "in_replay": True},
            {"kind": "corrupt", "at": [2], "count": 4},
            {"kind": "oversize", "at": [3], "size": 100_000},
            {"kind": "wrong_parent", "at": [4]},
        )
        await send(pod, 5)
        live = await arriving(reader, 5)
        again = await replay(pod.pod.ranks[0].publisher.replay_endpoint, 0)
        for frame in live[:2]:
            with pytest.raises(DecodeError):
                decode_batch(frame.payload)
        assert decode_batch(again[0].payload).events
        assert again[1].payload == live[1].payload
        assert again[2].payload != live[2].payload
        assert len(live[3].payload) == 100_000
        assert decode_batch(live[4].payload).events[0].parent_block_hash is not None
        assert decode_batch(again[4].payload).events[0].parent_block_hash is None
        assert [name for name, _ in await faults_logged(pod)] == [
            "truncate",
            "truncate",
            "corrupt",
            "oversize",
            "wrong_parent",
        ]


async def test_a_rebind_loses_what_is_published_meanwhile_and_comes_back_at_the_same_address():
    async with start_pod() as pod, subscriber(pod) as reader:
        await send(pod, 1)
        assert (await reader.receive()).seq == 0
        before = pod.pod.ranks[0].publisher.endpoint
        await put(pod, {"kind": "rebind", "at": [1], "ms": 200})
        await send(pod, 2, first=1)
        await reader.connected()
        await heal(pod)
        number = 3

        async def heard():
            nonlocal number
            await send(pod, 1, first=number)
            number += 1
            return await reader.socket.poll(20)

        await until("an event arrives", heard)
        assert (await reader.receive()).seq >= 3
        assert pod.pod.ranks[0].publisher.endpoint == before
        assert ("lost_while_closed", 1) in await faults_logged(pod)
        again = await replay(pod.pod.ranks[0].publisher.replay_endpoint, 0)
        assert [item.seq for item in again] == list(range(number))


@pytest.mark.parametrize("blocks", ["kept", "lost"])
async def test_a_restart_begins_at_zero_with_an_empty_buffer(blocks):
    async with start_pod() as pod:
        await send(pod, 3)
        await pod.quiet()
        await put(pod, {"kind": "restart", "blocks": blocks})
        assert len(await truth(pod)) == (3 if blocks == "kept" else 0)
        await send(pod, 2, first=10)
        digest = await pod.quiet()
        assert digest["seq"] == {"0": 1}
        items = await replay(pod.pod.ranks[0].publisher.replay_endpoint, 0)
        assert [item.seq for item in items] == [0, 1]
        mirror = Mirror().apply_payloads([item.payload for item in items])
        assert len(mirror.copies) == 2, "no clear is announced, because a new process does not know the old blocks"
        assert set(mirror.copies) <= set(await truth(pod))
        assert len(await truth(pod)) == (5 if blocks == "kept" else 2)


async def test_a_restarted_publisher_can_overtake_its_predecessor():
    async with start_pod() as pod, subscriber(pod) as reader:
        await send(pod, 3)
        old = await arriving(reader, 3)
        await put(pod, {"kind": "restart", "ahead": 4})
        assert await truth(pod) == {}
        items = await replay(pod.pod.ranks[0].publisher.replay_endpoint, 0)
        assert [item.seq for item in items] == list(range(7)), "what subscribers missed is in the replay buffer"
        assert all(item.payload != frame.payload for item, frame in zip(items, old, strict=False))
        await send(pod, 1, first=10)
        assert (await pod.quiet())["seq"] == {"0": 7}
        again = await replay(pod.pod.ranks[0].publisher.replay_endpoint, 0)
        assert set(Mirror().apply_payloads([item.payload for item in again]).copies) == set(await truth(pod))


async def test_a_publisher_that_overtakes_has_lost_its_cache():
    async with start_pod() as pod:
        plan = {"faults": [{"kind": "restart", "ahead": 4, "blocks": "kept"}]}
        async with pod.client.put(pod.url + "/debug/faults", json=plan) as answer:
            assert answer.status == 400
            assert "ahead needs blocks: lost" in await answer.text()


@pytest.mark.parametrize(
    ("about", "said"),
    [("end", []), ("order", [(3, 3), (2, 2), (1, 1), (0, 0)]), ("payload", [(0, 1), (1, 2), (2, 3), (3, 0)])],
)
async def test_a_replay_can_lie(about, said):
    async with start_pod() as pod:
        await send(pod, 4)
        await pod.quiet()
        endpoint = pod.pod.ranks[0].publisher.replay_endpoint
        true = {item.seq: item.payload for item in await replay(endpoint, 0)}
        await put(pod, {"kind": "replay_lie", "about": about, "limit": 1})
        lies = [(item.seq, item.payload) for item in await replay(endpoint, 0)]
        assert lies == [(seq, true[other]) for seq, other in said]
        assert {item.seq: item.payload for item in await replay(endpoint, 0)} == true
        assert await faults_logged(pod) == [("replay_lie", None)]


async def test_replays_can_be_silent_slow_or_cut():
    async with start_pod() as pod:
        await send(pod, 4)
        await pod.quiet()
        endpoint = pod.pod.ranks[0].publisher.replay_endpoint
        await put(
            pod,
            {"kind": "replay_silent", "at": [0]},
            {"kind": "replay_truncate", "at": [1], "replies": 2, "marker": True},
            {"kind": "replay_slow", "at": [2], "ms": 50},
            {"kind": "replay_truncate", "at": [3], "replies": 1},
        )
        base = pod.pod.ranks[0].publisher.statistics().replay_requests
        assert base == 0
        assert seqs(await replay_frames(endpoint, 0, 0)) == [0, 1], "only the second request is answered"
        loop = asyncio.get_running_loop()
        started = loop.time()
        assert len(await replay(endpoint, 0)) == 4
        assert loop.time() - started > 0.19
        assert seqs(await replay_frames(endpoint, 0, 0)) == [0, 0, 1, 2, 3], "the first replay has no end marker"
        assert [name for name, _ in await faults_logged(pod)] == [
            "replay_silent",
            "replay_truncate",
            "replay_slow",
            "replay_truncate",
        ]


async def test_http_errors_and_slow_tokens():
    async with start_pod() as pod:
        await put(
            pod, {"kind": "http_error", "at": [0], "status": 503}, {"kind": "slow_tokens", "at": [1, 2], "ms": 30}
        )
        status, error = await pod.post("/v1/completions", {"prompt": "x", "max_tokens": 5})
        assert (status, error["error"]["code"]) == (503, 503)
        loop = asyncio.get_running_loop()
        started = loop.time()
        assert len(await pod.stream("/v1/completions", {"prompt": "x", "max_tokens": 5})) == 5
        assert loop.time() - started > 0.14
        started = loop.time()
        assert (await pod.post("/v1/completions", {"prompt": "x", "max_tokens": 5}))[0] == 200
        assert loop.time() - started > 0.14
        assert await pod.text("/health") == ""


async def test_the_same_seed_does_the_same():
    async def run(seed):
        async with start_pod() as pod:
            rates = [
                {"kind": "drop", "rate": 0.3},
                {"kind": "duplicate", "rate": 0.3},
                {"kind": "reorder", "rate": 0.2},
            ]
            await put(pod, *rates, seed=seed)
            await send(pod, 20)
            return await faults_logged(pod)

    first = await run(5)
    assert len(first) > 5
    assert await run(5) == first
    assert await run(6) != first


async def test_a_plan_may_come_from_a_file(tmp_path):
    path = tmp_path / "faults.yaml"
    path.write_text("seed: 3\nfaults:\n  - {kind: drop, at: [0]}\n")
    async with start_pod(mock_faults=path) as pod:
        await send(pod, 2)
        assert (await pod.get("/debug/faults"))[1]["counts"] == {"drop": 1}
    path.write_text(json.dumps({"faults": [{"kind": "drip"}]}))
    config = make_config(mock_faults=path)
    with pytest.raises(ConfigError, match=r"mock_faults: .*kind: 'drip' refused"):
        Pod(config, Environment(), latency=build_latency(config))


async def test_a_bad_plan_is_a_400_and_changes_nothing():
    async with start_pod() as pod:
        await put(pod, {"kind": "drop", "at": [9]})
        for body in (b"{", b'{"faults":[{"kind":"x"}]}', b'{"faults":3}', b"[]"):
            async with pod.client.put(pod.url + "/debug/faults", data=body) as answer:
                assert answer.status == 400
                assert "error" in await answer.json()
        assert (await pod.get("/debug/faults"))[1]["faults"][0]["kind"] == "drop"


async def test_live_frames_still_parse_after_every_kind_of_replay_form():
    async with start_pod(mock_wire_version="0.20.0") as pod:
        await put(pod, {"kind": "duplicate"})
        await send(pod, 1)
        frames = await replay_frames(reachable(pod.pod.ranks[0].publisher.replay_endpoint), 0)
        assert parse_replay_reply(frames[-1]) is REPLAY_END
        assert len(frames) == 2
