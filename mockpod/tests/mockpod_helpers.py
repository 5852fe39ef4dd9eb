"""A pod on real sockets in the event loop of the test, and subscribers of its event stream."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import aiohttp
import zmq
import zmq.asyncio

from kvsync_events import (
    REPLAY_END,
    BlockRemoved,
    BlockStored,
    EventBatch,
    PubFrame,
    ReplayItem,
    decode_batch,
    parse_pub_frames,
    parse_replay_reply,
    replay_request,
)
from kvsync_mockpod.config import PodConfig, build_config
from kvsync_mockpod.latency import build_latency
from kvsync_mockpod.pod import Environment, Pod
from kvsync_mockpod.publish import EventPublisher
from kvsync_mockpod.server import bind_http, serve
from kvsync_testkit.waiting import until

EVENTS = {"enable_kv_cache_events": True, "endpoint": "tcp://*:0", "replay_endpoint": "tcp://*:0"}


@dataclass
class RunningPod:
    pod: Pod
    url: str
    client: aiohttp.ClientSession
    stop: asyncio.Event
    task: "asyncio.Task[None]"

    async def post(self, path: str, body: object, **headers: str) -> tuple[int, dict]:
        async with self.client.post(self.url + path, json=body, headers=headers) as answer:
            return answer.status, await answer.json()

    async def get(self, path: str) -> tuple[int, dict]:
        async with self.client.get(self.url + path) as answer:
            return answer.status, await answer.json()

    async def text(self, path: str) -> str:
        async with self.client.get(self.url + path) as answer:
            assert answer.status == 200
            return await answer.text()

    async def lines(self, path: str) -> list[dict]:
        return [json.loads(line) for line in (await self.text(path)).splitlines()]

    async def stream(self, path: str, body: dict) -> list[dict]:
        """The chunks of a streamed answer; asserts that it ends with [DONE]."""
        async with self.client.post(self.url + path, json={**body, "stream": True}) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.headers["content-type"].startswith("text/event-stream")
            events = [line[6:] for line in (await answer.text()).splitlines() if line.startswith("data: ")]
        assert events[-1] == "[DONE]"
        return [json.loads(event) for event in events[:-1]]

    async def quiet(self) -> dict:
        """Wait until the pod is idle and has published everything; returns its digest."""

        async def settled() -> dict | None:
            _, digest = await self.get("/debug/kv/digest")
            return digest if digest["quiet"] else None

        return await until("the pod is quiet", settled)


def make_config(**values: object) -> PodConfig:
    given = {"host": "127.0.0.1", "port": 0, "mock_debug": True, "kv_events_config": EVENTS, **values}
    return build_config({key.replace("-", "_"): value for key, value in given.items()})


@contextlib.asynccontextmanager
async def start_pod(environment: Environment | None = None, **values: object) -> AsyncIterator[RunningPod]:
    config = make_config(**values)
    pod = Pod(config, environment or Environment(), latency=build_latency(config))
    listener = bind_http(config.host, config.port)
    pod.open()
    stop, ready = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(serve(pod, listener, stop, ready.set))
    await asyncio.wait_for(ready.wait(), 10)
    url = "http://{}:{}".format(*listener.getsockname()[:2])
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as client:
        running = RunningPod(pod, url, client, stop, task)
        try:
            yield running
        finally:
            stop.set()
            if not task.done():
                await asyncio.sleep(0)
                for rank in pod.ranks:
                    rank.abort_all()
            await asyncio.wait_for(task, 20)


def reachable(endpoint: str) -> str:
    return endpoint.replace("0.0.0.0", "127.0.0.1").replace("*", "127.0.0.1")


@contextlib.contextmanager
def zmq_context() -> Iterator[zmq.asyncio.Context]:
    """A context that closes its sockets even if the test fails."""
    context = zmq.asyncio.Context()
    try:
        yield context
    finally:
        context.destroy(linger=0)


class Subscriber:
    """A SUB socket; `subscribed` waits until the pod sends to it."""

    def __init__(self, context: zmq.asyncio.Context, endpoint: str, topic: bytes = b"") -> None:
        self.topic = topic
        self.socket = context.socket(zmq.SUB)
        self.socket.set_hwm(0)
        self.socket.setsockopt(zmq.SUBSCRIBE, topic)
        self.monitor = self.socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self.socket.connect(reachable(endpoint))

    async def connected(self) -> None:
        await asyncio.wait_for(self.monitor.recv_multipart(), 10)

    async def subscribed(self, publisher: EventPublisher) -> None:
        """Send probes on the publisher's own socket until one arrives, then receive those still on their way.

        libzmq processes a subscription some time after the handshake and reports it to no one. The probes are not
        batches, so they use no sequence numbers.
        """
        await self.connected()
        sender = publisher._stream._socket
        sent = 0

        async def arrives() -> bool:
            nonlocal sent
            sent += 1
            sender.send_multipart([self.topic, b"probe", b"%d" % sent])
            return bool(await self.socket.poll(20))

        await until("a probe arrives", arrives)
        while int((await asyncio.wait_for(self.socket.recv_multipart(), 10))[2]) < sent:
            pass

    async def receive(self) -> PubFrame:
        return parse_pub_frames(await asyncio.wait_for(self.socket.recv_multipart(), 10))

    async def receive_through(self, seq: int) -> list[PubFrame]:
        """Frames up to and including number `seq`."""
        frames = [await self.receive()]
        while frames[-1].seq < seq:
            frames.append(await self.receive())
        return frames


@contextlib.asynccontextmanager
async def subscriber(running: RunningPod, rank: int = 0, topic: bytes = b"") -> AsyncIterator[Subscriber]:
    with zmq_context() as context:
        publisher = running.pod.ranks[rank].publisher
        made = Subscriber(context, publisher.endpoint, topic)
        await made.subscribed(publisher)
        yield made


async def replay(endpoint: str, start: int) -> list[ReplayItem]:
    """The batches of a replay; asserts that it ends with the marker."""
    frames = await replay_frames(endpoint, start)
    items = [parse_replay_reply(each) for each in frames]
    assert items[-1] is REPLAY_END
    assert all(isinstance(item, ReplayItem) for item in items[:-1])
    return items[:-1]


async def replay_frames(endpoint: str, *starts: int) -> list[list[bytes]]:
    """Send one replay request per start and receive until the first end marker."""
    received: list[list[bytes]] = []
    with zmq_context() as context:
        socket = context.socket(zmq.DEALER)
        socket.set_hwm(0)
        socket.connect(reachable(endpoint))
        for start in starts:
            await socket.send_multipart(replay_request(start))
        while not received or received[-1][-2] != b"\xff" * 8:
            received.append(await asyncio.wait_for(socket.recv_multipart(), 10))
    return received


class Mirror:
    """Resident blocks according to the events, as number of copies by hash."""

    def __init__(self) -> None:
        self.copies: dict[object, int] = {}
        self.parents: dict[object, object] = {}

    def apply(self, batch: EventBatch) -> None:
        for event in batch.events:
            if isinstance(event, BlockStored):
                parent = event.parent_block_hash
                for block in event.block_hashes:
                    self.copies[block] = self.copies.get(block, 0) + 1
                    self.parents[block] = parent
                    parent = block
            elif isinstance(event, BlockRemoved):
                for block in event.block_hashes:
                    self.copies[block] -= 1
                    if not self.copies[block]:
                        del self.copies[block]
            else:
                self.copies.clear()

    def apply_payloads(self, payloads: list[bytes]) -> "Mirror":
        for payload in payloads:
            self.apply(decode_batch(payload))
        return self


async def truth(running: RunningPod, rank: int = 0) -> dict[object, int]:
    """Number of copies by hash according to the pod's own block table."""
    return {row["hash"]: row["copies"] for row in await running.lines(f"/debug/kv/blocks?rank={rank}")}
