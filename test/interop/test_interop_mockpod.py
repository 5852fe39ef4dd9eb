"""A live mock pod of each version, read like a strict vLLM subscriber of that version: stream, replay, contents."""

import concurrent.futures
import itertools
import random

import msgspec
import pytest
import zmq
from interop_live import Pod, get, wait_for
from interop_versions import VERSIONS
from vllm_classes import load_kv_events

from kvsync_events import WireForm
from kvsync_testkit.checks import Row, check_agreement, parse_rows

END = (-1).to_bytes(8, "big", signed=True)


def drive(pod, seed=3):
    """Send prompts that share prefixes, overflow the cache and cross block edges."""
    rng = random.Random(seed)
    heads = [[rng.randrange(1000, 30_000) for _ in range(64)] for _ in range(3)]
    for turn in range(24):
        tail = [rng.randrange(1000, 30_000) for _ in range(rng.choice((0, 5, 40)))]
        pod.complete(heads[turn % 3][: rng.choice((16, 32, 64))] + tail, rng.choice((1, 20)))


def subscribe(context, endpoint, rcvhwm=1000):
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.RCVHWM, rcvhwm)
    socket.setsockopt_string(zmq.SUBSCRIBE, "kv-events")
    socket.connect(endpoint)
    return socket


def replay(context, endpoint, start):
    """The frames that a DEALER receives up to the end marker, unchanged."""
    with context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(endpoint)
        socket.send_multipart([b"", start.to_bytes(8, "big")])
        messages = []
        while not messages or messages[-1][-2] != END:
            assert socket.poll(5000), f"replay silent after {len(messages)} messages"
            messages.append(socket.recv_multipart())
        return messages


def table(batches, theirs):
    """The resident blocks according to events in vLLM's own structs."""
    rows = {}
    for event in itertools.chain.from_iterable(batch.events for batch in batches):
        if isinstance(event, theirs.AllBlocksCleared):
            rows.clear()
            continue
        medium, group = getattr(event, "medium", None) or "GPU", getattr(event, "group_idx", None)
        for block_hash in event.block_hashes:
            row = Row(block_hash & (2**64 - 1), medium, group)
            rows[row] = rows.get(row, 0) + (1 if isinstance(event, theirs.BlockStored) else -1)
            if not rows[row]:
                del rows[row]
    return rows


@pytest.mark.parametrize("version", VERSIONS)
def test_strict_subscriber_of_this_version(version, tmp_path):
    theirs = load_kv_events(version)
    decoder = msgspec.msgpack.Decoder(theirs.KVEventBatch)
    with (
        Pod(tmp_path, version, "--num-gpu-blocks-override", "40", "--max-model-len", "512") as pod,
        zmq.Context() as context,
    ):
        with subscribe(context, pod.endpoint) as live:
            fresh = itertools.count(2000)  # a prompt that is cached already announces nothing
            wait_for(lambda: pod.complete([next(fresh)] * 33, 1) and live.poll(200), "the first live batch")
            drive(pod)
            state = wait_for(lambda: _quiet(pod), "the pod is quiet")
            frames = [live.recv_multipart()]
            while int.from_bytes(frames[-1][1], "big") < state["seq"]["0"]:
                assert live.poll(10_000), f"no live batch after {len(frames)}"
                frames.append(live.recv_multipart())
        replies = replay(context, pod.replay, 0)
        truth = parse_rows(get(f"{pod.url}/debug/kv/blocks?rank=0").splitlines())
    assert all(len(message) == 3 and message[0] == b"kv-events" for message in frames)
    streamed = {int.from_bytes(seq, "big"): payload for _, seq, payload in frames}
    width = 4 if WireForm.for_version(version).replay_topic else 3
    assert all(len(message) == width and message[0] == b"" for message in replies)
    assert replies[-1] == ([b"", b"", END, b""] if width == 4 else [b"", END, b""])
    if width == 4:
        assert {message[1] for message in replies[:-1]} == {b"kv-events"}
    replayed = {int.from_bytes(message[-2], "big"): message[-1] for message in replies[:-1]}
    assert sorted(replayed) == list(range(state["seq"]["0"] + 1))
    assert streamed == {seq: payload for seq, payload in replayed.items() if seq in streamed}
    assert sorted(streamed) == list(range(min(streamed), max(replayed) + 1))
    batches = [decoder.decode(replayed[seq]) for seq in sorted(replayed)]
    assert all(msgspec.msgpack.encode(batch) == replayed[seq] for seq, batch in enumerate(batches))
    assert not check_agreement("pod", truth, table(batches, theirs))
    assert any(isinstance(event, theirs.BlockRemoved) for batch in batches for event in batch.events)


@pytest.mark.parametrize("version", VERSIONS)
def test_strict_subscriber_of_this_version_under_load(version, tmp_path):
    """With eight concurrent clients, every live batch is read as it arrives, and a replay is requested in between."""
    theirs = load_kv_events(version)
    decoder = msgspec.msgpack.Decoder(theirs.KVEventBatch)
    with (
        Pod(tmp_path, version, "--num-gpu-blocks-override", "120", "--max-model-len", "512") as pod,
        zmq.Context() as context,
        subscribe(context, pod.endpoint, rcvhwm=0) as live,
        concurrent.futures.ThreadPoolExecutor(8) as clients,
    ):
        fresh = itertools.count(2000)
        wait_for(lambda: pod.complete([next(fresh)] * 33, 1) and live.poll(200), "the first live batch")
        running = [clients.submit(drive, pod, seed) for seed in range(16)]
        streamed, batches, asked = {}, {}, None

        def receive():
            _topic, number, payload = live.recv_multipart()
            seq = int.from_bytes(number, "big")
            streamed[seq], batches[seq] = payload, decoder.decode(payload)

        while not all(one.done() for one in running):
            if live.poll(20):
                receive()
            if asked is None and len(streamed) == 100:
                asked = replay(context, pod.replay, min(streamed))[:-1]
        assert [one.result() for one in running] == [None] * 16
        last = wait_for(lambda: _quiet(pod), "the pod is quiet")["seq"]["0"]
        while max(streamed) < last:
            assert live.poll(10_000), f"no live batch after {max(streamed)}"
            receive()
        replies = {int.from_bytes(m[-2], "big"): m[-1] for m in replay(context, pod.replay, 0)[:-1]}
        truth = parse_rows(get(f"{pod.url}/debug/kv/blocks?rank=0").splitlines())
    assert sorted(streamed) == list(range(min(streamed), last + 1)), "no live batch is lost"
    assert len(streamed) > 200
    assert sorted(replies) == list(range(last + 1))
    assert streamed == {seq: replies[seq] for seq in streamed}
    assert len(asked) >= 100
    assert all(m[-1] == replies[int.from_bytes(m[-2], "big")] for m in asked), "a replay in the middle: the same bytes"
    early = [decoder.decode(replies[seq]) for seq in range(min(streamed))]
    assert any(isinstance(event, theirs.BlockRemoved) for batch in batches.values() for event in batch.events)
    assert not check_agreement("pod", truth, table([*early, *(batches[seq] for seq in sorted(batches))], theirs))


def _quiet(pod):
    state = msgspec.json.decode(get(f"{pod.url}/debug/kv/digest"))
    return state if state["quiet"] else None


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
def test_replay_from_the_middle_and_beyond_the_end(version, tmp_path):
    with Pod(tmp_path, version) as pod, zmq.Context() as context:
        for turn in range(5):
            pod.complete([turn + 1] * 20, 1)
        last = wait_for(lambda: _quiet(pod), "the pod is quiet")["seq"]["0"]
        assert [int.from_bytes(m[-2], "big") for m in replay(context, pod.replay, last - 1)[:-1]] == [last - 1, last]
        assert len(replay(context, pod.replay, last + 1)) == 1
