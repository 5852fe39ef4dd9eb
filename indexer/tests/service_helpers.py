"""A scripted publisher on real sockets."""

import itertools
import threading
import time
from collections import deque

import zmq

from kvsync_events import (
    AllBlocksCleared,
    BlockRemoved,
    BlockStored,
    EventBatch,
    FrameError,
    SetDigest,
    WireForm,
    encode_batch,
    encode_seq,
    parse_replay_request,
    pub_frames,
    replay_end,
    replay_reply,
)
from kvsync_testkit.waiting import wait_until

MODEL = "test-model"
BLOCK = 4
DEADLINE_S = 30.0
"""Long enough for what takes milliseconds on an idle machine."""
START_S = 60.0
"""The same for the start of a process."""
_hashes = itertools.count(1)


def wait_for(condition, timeout_s=DEADLINE_S, what="condition"):
    """`wait_until` with the deadline of these tests."""
    return wait_until(what, condition, deadline_s=timeout_s)


def block_hash(*key):
    """A 64-bit hash that two processes do not share."""
    return hash((next(_hashes), *key)) & ((1 << 64) - 1)


class ScriptedPublisher:
    """One process behind a stream: PUB, replay ROUTER with a bounded buffer, and the truth about what is resident."""

    def __init__(self, port=None, replay_port=None, *, buffer_steps=1000, version="0.33.0", topic="", connect=None):
        self.form = WireForm.for_version(version)
        self.topic = topic
        self.context = zmq.Context()
        self.pub = self.context.socket(zmq.PUB)
        self.pub.setsockopt(zmq.LINGER, 0)
        self.router = self.context.socket(zmq.ROUTER)
        self.router.setsockopt(zmq.LINGER, 0)
        if connect is not None:
            self.pub.connect(connect)
            self.endpoint = connect
        else:
            self._bind(self.pub, port)
            self.endpoint = self.pub.getsockopt_string(zmq.LAST_ENDPOINT)
        self._bind(self.router, replay_port)
        self.replay_endpoint = self.router.getsockopt_string(zmq.LAST_ENDPOINT)
        self.buffer = deque(maxlen=buffer_steps)
        self.seq = 0
        self.resident = {}
        self.silent = False
        self.lie_empty = False
        self.requests = []
        self._lock = threading.Lock()
        self._stop = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @staticmethod
    def _bind(socket, port):
        def bind():
            socket.bind(f"tcp://127.0.0.1:{port or '*'}")
            return True

        wait_until("the port is free", bind, deadline_s=DEADLINE_S, retry_on=(zmq.ZMQError,))

    @property
    def ports(self):
        return int(self.endpoint.rpartition(":")[2]), int(self.replay_endpoint.rpartition(":")[2])

    def digest(self):
        return SetDigest(tuple(self.resident))

    def store(self, count=1, tokens=None, parent=None, **how):
        hashes = [block_hash() for _ in range(count)]
        tokens = list(range(count * BLOCK)) if tokens is None else tokens
        for each in hashes:
            self.resident[each] = self.resident.get(each, 0) + 1
        event = BlockStored(
            block_hashes=hashes, parent_block_hash=parent, token_ids=tokens, block_size=BLOCK, lora_id=None
        )
        self.publish([event], **how)
        return hashes

    def remove(self, hashes, **how):
        for each in hashes:
            self.resident.pop(each, None)
        self.publish([BlockRemoved(block_hashes=[each]) for each in hashes], **how)

    def clear(self, **how):
        self.resident.clear()
        self.publish([AllBlocksCleared()], **how)

    def publish(self, events, *, send=True, keep=True, payload=None):
        """One batch; `send=False` loses it live, `keep=False` loses it from the replay buffer."""
        if payload is None:
            payload = encode_batch(EventBatch(ts=time.time(), events=events, data_parallel_rank=0), self.form)
        with self._lock:
            seq, self.seq = self.seq, self.seq + 1
            if keep:
                self.buffer.append((seq, payload))
        if send:
            self.pub.send_multipart(pub_frames(self.topic, seq, payload))
        return seq

    def send_raw(self, frames):
        self.pub.send_multipart(frames)

    def resend(self, seq):
        """Publish a batch that was published before once more."""
        payload = dict(self.buffer)[seq]
        self.pub.send_multipart([self.topic.encode(), encode_seq(seq), payload])

    def _serve(self):
        while not self._stop:
            if not self.router.poll(5):
                continue
            identity, *rest = self.router.recv_multipart()
            try:
                start = parse_replay_request(rest)
            except FrameError:
                continue
            self.requests.append(start)
            if self.silent:
                continue
            with self._lock:
                items = [item for item in self.buffer if item[0] >= start]
            if not self.lie_empty:
                for seq, payload in items:
                    self.router.send_multipart([identity, *replay_reply(self.form, self.topic, seq, payload)])
            self.router.send_multipart([identity, *replay_end(self.form, self.topic)])

    def close(self):
        """The process dies."""
        self._stop = True
        self._thread.join(5)
        self.context.destroy(linger=0)
