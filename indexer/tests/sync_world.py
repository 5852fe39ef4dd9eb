"""A publisher, a faulty network and a driver in virtual time, around one machine and a real core.

The truth is kept apart: for every process, the set of resident blocks after each of its batches. At any moment the
core must hold a subset of what the process had after the last applied batch, and exactly that when the machine says
that it is trusted and complete.
"""

import random
from collections import deque

from kvsync_events import AllBlocksCleared, BlockRemoved, BlockStored, DecodeError, EventBatch, WireForm, encode_batch
from kvsync_indexer.core import PythonCore
from kvsync_indexer.sync import (
    Apply,
    CancelReplay,
    Clear,
    Connect,
    Disconnect,
    Log,
    PublisherMachine,
    Remove,
    RequestReplay,
    State,
    SyncSettings,
)

FORM = WireForm.for_version("0.33.0")
NAME = "p"
SETTINGS = SyncSettings(
    stale_after_s=5.0, replay_timeout_s=1.0, repair_s=2.0, repair_max_s=8.0, verify_idle_s=4.0, overlap=3, ring=32,
    buffer_frames=24, quarantine_max_s=8.0, replay_total_s=30.0,
)  # fmt: skip


class Process:
    """One engine process: its sequence, replay buffer and the truth after each batch."""

    def __init__(self, number, retention, rng):
        self.number = number
        self.rng = rng
        self.buffer = deque(maxlen=retention)
        self.seq = 0
        self.resident = set()
        self.truth = {}
        self.evicted = 0
        self.poisoned = False
        self.lied = False
        self._hashes = 0

    def fresh(self):
        self._hashes += 1
        return self.number * 1_000_000 + self._hashes

    def batch(self, poison=False, hole=False):
        """One step: some blocks stored, some removed, rarely everything cleared. (seq, payload) or None for a hole."""
        events = []
        gone = self.rng.sample(sorted(self.resident), min(len(self.resident), self.rng.randrange(3)))
        if self.rng.random() < 0.03:
            events.append(AllBlocksCleared())
            self.resident.clear()
            gone = []
        for each in gone:
            self.resident.discard(each)
            events.append(BlockRemoved(block_hashes=[each]))
        new = [self.fresh() for _ in range(self.rng.randrange(1, 4))]
        self.resident.update(new)
        tokens = [self.rng.randrange(1 << 20) for _ in new]
        events.append(
            BlockStored(block_hashes=new, parent_block_hash=None, token_ids=tokens, block_size=1, lora_id=None)
        )
        payload = encode_batch(EventBatch(ts=float(self.number), events=events, data_parallel_rank=0), FORM)
        if poison:
            payload = b"\xc1" + payload
            self.poisoned = True
        seq = self.seq
        self.seq += 1
        self.truth[seq] = frozenset(self.resident)
        if hole:  # the publisher could not encode it: the number is used up
            self.poisoned = True
            return None
        if len(self.buffer) == self.buffer.maxlen:
            self.evicted += 1
        self.buffer.append((seq, payload))
        return seq, payload


class World:
    """Everything outside the machine, and the driver's side of its contract."""

    def __init__(
        self, seed=0, retention=40, settings=SETTINGS, epochs=False, monitor_lag=False, machine=PublisherMachine
    ):
        self.rng = random.Random(seed)
        self.now = 100.0
        self.retention = retention
        self.epochs = epochs
        self.monitor_lag = monitor_lag
        self.core = PythonCore()
        self.core.add_publisher(NAME, "m")
        self.machine = machine(NAME, settings, now=self.now, epoch="0" if epochs else None)
        self.process = Process(0, retention, self.rng)
        self.processes = [self.process]
        self.alive = True
        self.partitioned = False
        self.replay_mode = "ok"
        self.corrupt_replay = False
        self.channels = {"monitor": deque(), "frames": deque(), "replay": deque()}
        self.socket = None  # link number of the open event socket
        self.peer = None  # process it is connected to
        self.silent_since = None
        self.replay_attempt = None
        self.applied_by = None
        self.last_applied = (-1, -1)
        self.payload_of = {}
        self.delivered = {}
        self.trace = []
        self.perform(self.machine.start(self.now))

    # -- driver -------------------------------------------------------------------------------------------------

    def perform(self, actions):
        changed = any(not isinstance(action, RequestReplay | CancelReplay) for action in actions)
        while actions:
            failed = None
            for action in actions:
                failed = self._one(action)
                if failed:
                    break
            actions = self.machine.apply_failed(*failed, self.now) if failed else []
        if changed:
            self.check()

    def _one(self, action):
        match action:
            case Apply(first, payloads):
                for seq, payload in enumerate(payloads, first):
                    order = (self.machine.incarnation, seq)
                    assert order > self.last_applied, f"applied {order} after {self.last_applied}"
                    try:
                        self.core.apply(NAME, payload)
                    except DecodeError as error:
                        return seq, str(error)
                    self.last_applied = order
                    self.applied_by = self.payload_of[payload]
            case Clear():
                self.core.clear_publisher(NAME)
                self.applied_by = None
                self.last_applied = (self.machine.incarnation, -1)  # a rebuild may go back to the start
            case Connect(link):
                self._close()
                self.socket = link
            case Disconnect():
                self._close()
            case RequestReplay(attempt, start):
                self.channels["replay"].clear()
                self.replay_attempt = attempt
                self._serve(attempt, start)
            case CancelReplay():
                self.channels["replay"].clear()
                self.replay_attempt = None
            case Remove():
                self.core.remove_publisher(NAME)
            case Log():
                self.trace.append((round(self.now, 3), action.fields.get("after"), action.fields.get("reason")))
        return None

    def _close(self):
        for channel in self.channels.values():
            channel.clear()
        self.socket = self.peer = self.replay_attempt = None

    # -- network ------------------------------------------------------------------------------------------------

    def network(self):
        """Connections come and go as the world allows."""
        reachable = self.alive and not self.partitioned
        if self.peer is not None and self.peer is not self.process:
            self._lose_peer()
        if self.peer is not None and not self.alive:
            self._lose_peer()
        if self.peer is not None and self.partitioned:
            self.silent_since = self.now if self.silent_since is None else self.silent_since
            if self.now - self.silent_since > 3.0:  # heartbeats time out
                self._lose_peer()
        else:
            self.silent_since = None
        if self.socket is not None and self.peer is None and reachable:
            self.peer = self.process
            self.channels["monitor"].append(("connected", self.socket))

    def _lose_peer(self):
        self.peer = None
        self.channels["monitor"].append(("disconnected", self.socket))

    def publish(self, *, lose=False, duplicate=False, reorder=False, poison=False, hole=False):
        made = self.process.batch(poison=poison, hole=hole)
        if made is None:
            return
        seq, payload = made
        self.payload_of[payload] = self.process
        if self.peer is not self.process or self.partitioned or lose:
            return
        message = ("frame", self.socket, seq, payload)
        frames = self.channels["frames"]
        if reorder and frames:
            frames.insert(len(frames) - 1, message)
        else:
            frames.append(message)
        if duplicate:
            frames.append(message)

    def _serve(self, attempt, start):
        if not self.alive or self.partitioned or self.replay_mode == "silent":
            return
        items = [("item", attempt, seq, payload) for seq, payload in self.process.buffer if seq >= start]
        end = [("end", attempt)]
        if self.replay_mode in ("empty", "holes", "shuffled"):
            self.process.lied = True
        if self.replay_mode == "empty":
            items = []
        elif self.replay_mode == "cut" and len(items) > 4:
            items, end = items[:4], []
        elif self.replay_mode == "holes":
            items = [item for item in items if self.rng.random() > 0.2]
        elif self.replay_mode == "shuffled":
            self.rng.shuffle(items)
        elif self.replay_mode == "twice":
            items = [item for item in items for _ in range(2)]
        self.channels["replay"].extend([*items, *end])

    def restart(self, batches=0):
        """The process dies and another comes at the same address."""
        self.process = Process(len(self.processes), self.retention, self.rng)
        self.processes.append(self.process)
        self.replay_attempt = None
        self.channels["replay"].clear()
        self.alive = True
        for _ in range(batches):
            self.publish()
        self.network()
        if self.epochs and self.rng.random() < 0.7:
            self.perform(self.machine.epoch_changed(str(self.process.number), self.now))

    # -- time ---------------------------------------------------------------------------------------------------

    def deliver(self, most=1_000_000):
        """Deliver queued messages, channels interleaved at random, each in its order."""
        for _ in range(most):
            self.network()
            ready = [name for name, queue in self.channels.items() if queue]
            if not ready:
                return
            late = self.monitor_lag and self.rng.random() < 0.7
            name = "monitor" if "monitor" in ready and not late else self.rng.choice(ready)
            kind, *rest = self.channels[name].popleft()
            getattr(self, f"_on_{kind}")(*rest)

    def _on_connected(self, link):
        self.perform(self.machine.connected(link, self.now))

    def _on_disconnected(self, link):
        self.perform(self.machine.disconnected(link, self.now))

    def _on_frame(self, link, seq, payload):
        process = self.payload_of[payload]
        self.delivered[process] = max(seq, self.delivered.get(process, 0))
        self.perform(self.machine.frame(link, seq, payload, self.now))

    def _on_item(self, attempt, seq, payload):
        self.perform(self.machine.replay_item(attempt, seq, payload, self.now))

    def _on_end(self, attempt):
        self.perform(self.machine.replay_end(attempt, self.now))

    def tick(self, seconds):
        self.now += seconds
        self.network()
        if self.peer is not None and not self.partitioned:
            self.perform(self.machine.alive(self.now - 1.0, self.now))
        self.perform(self.machine.tick(self.now))

    def heal(self, seconds=30.0, step=0.25):
        """No more faults; quiet until everything has settled."""
        self.partitioned = False
        self.replay_mode = "ok"
        if not self.alive:
            self.restart()
        if self.process.seq and self.process.seq - 1 not in {seq for seq, _ in self.process.buffer}:
            self.publish()  # a batch that could not be encoded shows only when another follows
        until = self.now + seconds
        while self.now < until:
            self.deliver()
            self.tick(step)
        self.deliver()

    # -- checks -------------------------------------------------------------------------------------------------

    def held(self):
        return {row.hash for row in self.core.dump(NAME)}

    def check(self):
        """What must hold at every moment."""
        machine = self.machine
        if machine.state is State.REMOVED:
            return
        if self.applied_by is None:
            assert not self.held()
            return
        last = machine.position.last_seq
        if last is None or not machine.trusted or self.channels["monitor"]:
            return
        truth = self.applied_by.truth.get(last)
        if truth is None:  # nothing of this incarnation is applied yet
            assert not self.held()
            return
        heard = self.delivered.get(self.applied_by, -1)
        assert heard <= last, f"trusted at batch {last} although batch {heard} was heard: {self.trace[-6:]}"
        held = self.held()
        assert held <= truth, f"false positives {held - truth}: {self.trace[-6:]}"
        if not machine.incomplete:
            assert held == truth, f"missing {truth - held} although complete: {self.trace[-6:]}"

    def check_healed(self, *, replay=True):
        """What must hold once faults are over (I1, I2, I3)."""
        machine, process = self.machine, self.process
        assert machine.state is State.LIVE, (machine.state, machine.reason, self.trace[-6:])
        held = self.held()
        assert held <= process.resident, f"false positives at rest: {held - process.resident} {self.trace[-6:]}"
        # A replay server that lied is not asked for ever whether it holds more: its publisher may stay incomplete.
        if replay and not process.evicted and not process.poisoned and not process.lied:
            assert not machine.incomplete, (machine.reason, self.trace[-6:])
        if not machine.incomplete:
            assert held == process.resident, f"missing: {process.resident - held} {self.trace[-6:]}"
