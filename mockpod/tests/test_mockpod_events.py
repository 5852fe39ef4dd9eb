"""The event stream on real sockets: numbers, bytes, both forms of replay, and ranks, compared with the pod's block
table.
"""

import asyncio

import pytest
import zmq
import zmq.asyncio
from mockpod_helpers import (
    EVENTS,
    Mirror,
    reachable,
    replay,
    replay_frames,
    start_pod,
    subscriber,
    truth,
    zmq_context,
)

from kvsync_events import WireForm, decode_batch, encode_batch
from kvsync_mockpod.pod import Environment
from kvsync_testkit.waiting import until


def prompt(number: int, length: int = 70) -> list[int]:
    return [70_000 + number * 1000 + position for position in range(length)]


async def churn(pod, requests: int = 30, first: int = 0) -> None:
    """Send distinct prompts, more than a small cache holds."""
    await asyncio.gather(
        *(pod.post("/v1/completions", {"prompt": prompt(first + n), "max_tokens": 20}) for n in range(requests))
    )


SMALL = {"num_gpu_blocks_override": 41, "max_model_len": 256, "max_num_seqs": 8}


async def test_live_events_replayed_into_a_set_equal_the_block_table():
    async with start_pod(**SMALL) as pod, subscriber(pod) as reader:
        await churn(pod)
        digest = await pod.quiet()
        frames = await reader.receive_through(digest["seq"]["0"])
        assert [frame.seq for frame in frames] == list(range(len(frames)))
        mirror = Mirror().apply_payloads([frame.payload for frame in frames])
        assert mirror.copies == await truth(pod)
        assert digest["digests"][0]["count"] == len(mirror.copies) > 20
        log = await pod.lines("/debug/kv/log")
        assert [entry["n"] for entry in log] == list(range(len(log)))
        stored = sum(entry["kind"] == "stored" for entry in log)
        removed = sum(entry["kind"] == "removed" for entry in log)
        assert removed > 30
        assert stored - removed == sum(mirror.copies.values())


async def test_a_replay_brings_the_very_bytes_that_were_published():
    async with start_pod(**SMALL) as pod, subscriber(pod) as reader:
        await churn(pod, 10)
        digest = await pod.quiet()
        live = await reader.receive_through(digest["seq"]["0"])
        again = await replay(pod.pod.ranks[0].publisher.replay_endpoint, 0)
        assert [(item.seq, item.payload) for item in again] == [(frame.seq, frame.payload) for frame in live]
        tail = await replay(pod.pod.ranks[0].publisher.replay_endpoint, len(live) - 3)
        assert [item.seq for item in tail] == [len(live) - 3, len(live) - 2, len(live) - 1]
        assert await replay(pod.pod.ranks[0].publisher.replay_endpoint, 10**9) == []


@pytest.mark.parametrize(("version", "frames"), [("0.25.0", 3), ("0.26.0", 4), ("newest", 4)])
async def test_replay_takes_the_form_of_the_version(version, frames):
    async with start_pod(mock_wire_version=version, kv_events_config={**EVENTS, "topic": "kv@a"}) as pod:
        await churn(pod, 2)
        await pod.quiet()
        received = await replay_frames(pod.pod.ranks[0].publisher.replay_endpoint, 0)
        assert all(len(each) == frames for each in received)
        if frames == 4:
            assert received[0][1] == b"kv@a"
        assert received[-1][1:] == ([b"", b"\xff" * 8, b""] if frames == 4 else [b"\xff" * 8, b""])


@pytest.mark.parametrize(("version", "group"), [("0.10.2", None), ("0.17.0", None), ("0.20.0", 0), ("newest", 0)])
async def test_the_truth_names_the_cache_group_only_where_the_events_can(version, group):
    """All three views agree: a checker for the index of an older version sees blocks without a group."""
    async with start_pod(mock_wire_version=version, **SMALL) as pod:
        await churn(pod, 8)
        digest = await pod.quiet()
        assert {row["group_idx"] for row in await pod.lines("/debug/kv/blocks")} == {group}
        assert {row["group_idx"] for row in digest["digests"]} == {group}
        log = await pod.lines("/debug/kv/log")
        assert {row["group_idx"] for row in log if row["kind"] in ("stored", "removed")} == {group}


async def test_the_buffer_keeps_the_last_batches_only():
    async with start_pod(kv_events_config={**EVENTS, "buffer_steps": 3}) as pod:
        for number in range(8):
            await churn(pod, 1, number)
        last = (await pod.quiet())["seq"]["0"]
        assert last > 3
        items = await replay(pod.pod.ranks[0].publisher.replay_endpoint, 0)
        assert [item.seq for item in items] == [last - 2, last - 1, last]


async def test_a_malformed_replay_request_is_never_answered_and_the_next_is():
    async with start_pod() as pod:
        await churn(pod, 1)
        await pod.quiet()
        with zmq_context() as context:
            socket = context.socket(zmq.DEALER)
            socket.connect(reachable(pod.pod.ranks[0].publisher.replay_endpoint))
            for frames in ([b"\0" * 8], [b"", b"\0" * 8, b"more"], [b"", b"\0" * 9]):
                await socket.send_multipart(frames)
            await until("all requests are refused", lambda: pod.pod.ranks[0].publisher.statistics().replay_refused == 3)
            assert not await socket.poll(20)
            await socket.send_multipart([b"", b"\0" * 8])
            assert len(await asyncio.wait_for(socket.recv_multipart(), 5)) == 4


async def test_one_batch_a_step_with_the_topic_and_the_rank():
    config = {**EVENTS, "topic": "kv-events"}
    async with start_pod(kv_events_config=config) as pod, subscriber(pod, topic=b"kv") as reader:
        await churn(pod, 3)
        frames = await reader.receive_through((await pod.quiet())["seq"]["0"])
        batches = [decode_batch(frame.payload) for frame in frames]
        assert {frame.topic for frame in frames} == {b"kv-events"}
        assert {batch.data_parallel_rank for batch in batches} == {0}
        assert all(batch.events for batch in batches)
        log = await pod.lines("/debug/kv/log")
        assert sum(len(event.block_hashes) for batch in batches for event in batch.events) == len(log)


CHANGES = "0.10.2 0.13.0 0.14.0 0.17.0 0.20.0 0.21.0 0.23.0 0.24.0 0.25.1 0.26.0 0.29.0 0.30.0 0.33.0"
"""The versions in which the wire format changed, and the last one before each."""


@pytest.mark.parametrize("version", CHANGES.split())
async def test_every_version_s_bytes_are_those_of_its_form(version):
    async with start_pod(mock_wire_version=version, max_model_len=256, num_gpu_blocks_override=64) as pod:
        await churn(pod, 1)
        await pod.quiet()
        (item, *_) = await replay(pod.pod.ranks[0].publisher.replay_endpoint, 0)
        batch = decode_batch(item.payload)
        assert encode_batch(batch, WireForm.for_version(version)) == item.payload
        assert set(Mirror().apply_payloads([item.payload]).copies) <= set(await truth(pod))


async def test_hashes_are_digests_when_the_environment_says_so():
    environment = Environment(int_block_hashes=False)
    async with start_pod(environment) as pod:
        await churn(pod, 1)
        await pod.quiet()
        items = await replay(pod.pod.ranks[0].publisher.replay_endpoint, 0)
        mirror = Mirror().apply_payloads([item.payload for item in items])
        assert {block.hex() for block in mirror.copies} == set(await truth(pod))


async def test_ranks_publish_apart_and_requests_choose_them():
    async with start_pod(data_parallel_size=2) as pod:
        status, _ = await pod.post(
            "/v1/completions", {"prompt": prompt(1), "max_tokens": 1}, **{"X-data-parallel-rank": "1"}
        )
        assert status == 200
        digest = await pod.quiet()
        assert digest["seq"] == {"0": -1, "1": 0}
        (item,) = await replay(pod.pod.ranks[1].publisher.replay_endpoint, 0)
        assert decode_batch(item.payload).data_parallel_rank == 1
        assert await truth(pod, 0) == {}
        assert len(await truth(pod, 1)) == 4
        status, answer = await pod.post("/v1/completions", {"prompt": prompt(1)}, **{"X-data-parallel-rank": "2"})
        assert status == 400
        assert answer["error"]["param"] == "X-data-parallel-rank"
        assert '{model_name="kvsync/mock",engine="1"}' in await pod.text("/metrics")


async def test_requests_without_a_rank_spread_by_load():
    async with start_pod(data_parallel_size=2) as pod:
        await asyncio.gather(*(pod.post("/v1/completions", {"prompt": prompt(n), "max_tokens": 64}) for n in range(10)))
        loads = [rank.engine.statistics().requests for rank in pod.pod.ranks]
        assert loads == [5, 5]


async def test_without_events_nothing_is_published_and_everything_else_works():
    async with start_pod(kv_events_config={}) as pod:
        status, _ = await pod.post("/v1/completions", {"prompt": prompt(1)})
        assert status == 200
        assert (await pod.quiet())["seq"] == {"0": -1}


async def test_a_fixed_endpoint_is_connected_so_that_the_reader_binds():
    with zmq_context() as context:
        reader = context.socket(zmq.SUB)
        reader.setsockopt(zmq.SUBSCRIBE, b"")
        port = reader.bind_to_random_port("tcp://127.0.0.1")
        async with start_pod(kv_events_config={**EVENTS, "endpoint": f"tcp://127.0.0.1:{port}"}) as pod:

            async def said_something() -> bool:
                await churn(pod, 1, said_something.calls)
                said_something.calls += 1
                return bool(await reader.poll(50))

            said_something.calls = 0
            await until("an event arrives", said_something)
            assert len(await reader.recv_multipart()) == 3
