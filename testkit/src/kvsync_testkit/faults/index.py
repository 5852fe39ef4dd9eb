"""The index's side of one publisher: the real state machine and a real core, driven as the ingest thread drives them.

Everything the machine asks for is carried out against the simulated path, and everything it does to the blocks is
written into a history that the checkers read.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from kvsync_events import DecodeError, digest_key
from kvsync_indexer.core import CoreError, IndexCore
from kvsync_indexer.sync import (
    Action,
    Apply,
    CancelReplay,
    Clear,
    Connect,
    Disconnect,
    Log,
    PublisherMachine,
    Remove,
    RequestReplay,
    SyncSettings,
)
from kvsync_testkit.checks import AppliedBatch, Forgotten, Row, TrustSample
from kvsync_testkit.faults.clock import VirtualTime
from kvsync_testkit.faults.network import Path

MODEL = "model"


@dataclass(slots=True)
class IndexHistory:
    """What the index did for one publisher."""

    applied: list[AppliedBatch | Forgotten] = field(default_factory=list)
    last_payload: bytes | None = None
    """The payload applied last, None when the blocks were dropped since."""
    trust: list[TrustSample] = field(default_factory=list)
    states: list[tuple[float, str, str]] = field(default_factory=list)
    after_removal: list[tuple[float, str]] = field(default_factory=list)
    replays: list[float] = field(default_factory=list)
    most_buffered: int = 0


class IndexSide:
    """One machine with its sockets. `on_settled` is called after every input, when the blocks are at rest."""

    def __init__(
        self,
        name: str,
        machine: PublisherMachine,
        settings: SyncSettings,
        core: IndexCore,
        path: Path,
        time: VirtualTime,
        epoch_of: Callable[[bytes], str],
        on_settled: Callable[["IndexSide"], None],
    ) -> None:
        self.name = name
        self.machine = machine
        self.settings = settings
        self.core = core
        self.path = path
        self.time = time
        self.history = IndexHistory()
        self.removed = False
        self._epoch_of = epoch_of
        self._on_settled = on_settled
        path.listener = self
        core.add_publisher(name, MODEL)

    def rows(self) -> dict[Row, int]:
        """The index's block table for this publisher."""
        if self.name not in self.core.publishers():
            return {}
        return {Row(digest_key(row.hash), row.medium, row.group_idx): row.copies for row in self.core.dump(self.name)}

    def digests(self) -> tuple[tuple[str, int, str], ...]:
        """(medium, count, digest) of every tier that holds something, by medium."""
        if self.name not in self.core.publishers():
            return ()
        return tuple((row.medium, row.count, row.digest_hex) for row in self.core.digest(self.name))

    # -- inputs -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """The index begins to follow the publisher."""
        self._perform(self.machine.start(self.time.now))

    def on_connected(self, link: int) -> None:
        """See Listener."""
        self._perform(self.machine.connected(link, self.time.now))

    def on_disconnected(self, link: int) -> None:
        """See Listener."""
        self._perform(self.machine.disconnected(link, self.time.now))

    def on_frame(self, link: int, seq: int, payload: bytes) -> None:
        """See Listener."""
        self._perform(self.machine.frame(link, seq, payload, self.time.now))

    def on_bad_frame(self, link: int) -> None:
        """See Listener."""
        self._perform(self.machine.bad_frame(link, "2 frames", self.time.now))

    def on_item(self, attempt: int, seq: int, payload: bytes) -> None:
        """See Listener."""
        self._perform(self.machine.replay_item(attempt, seq, payload, self.time.now))

    def on_end(self, attempt: int) -> None:
        """See Listener."""
        self._perform(self.machine.replay_end(attempt, self.time.now))

    def on_refused(self, attempt: int) -> None:
        """See Listener."""
        self._perform(self.machine.replay_failed(attempt, "refused", self.time.now))

    def epoch(self, epoch: str) -> None:
        """Discovery says which process it is."""
        self._perform(self.machine.epoch_changed(epoch, self.time.now))

    def depart(self) -> None:
        """Discovery says that the publisher is gone."""
        self._perform(self.machine.removed(self.time.now))
        self.removed = True

    def tick(self, heartbeat_s: float, *, heartbeats: bool) -> None:
        """Timers, as the ingest thread runs them."""
        now = self.time.now
        if heartbeats and self.path.alive_link:
            self.path.heard_s = now
            self._perform(self.machine.alive(now - heartbeat_s, now))
        self._perform(self.machine.tick(now))
        self.history.trust.append(TrustSample(now, self.name, self.machine.trusted, self.path.heard_s))

    # -- actions ----------------------------------------------------------------------------------------------------

    def _perform(self, actions: list[Action]) -> None:
        while actions:
            failed: tuple[int, str] | None = None
            for action in actions:
                failed = self._one(action)
                if failed is not None:
                    break
            actions = self.machine.apply_failed(*failed, self.time.now) if failed else []
        self.history.most_buffered = max(self.history.most_buffered, len(self.machine.buffer))
        if self.removed:
            if self.name in self.core.publishers():
                self.history.after_removal.append((self.time.now, "blocks in the index"))
            if self.machine.trusted:
                self.history.after_removal.append((self.time.now, "matched"))
        self._on_settled(self)

    def _one(self, action: Action) -> tuple[int, str] | None:
        match action:
            case Apply(first_seq, payloads):
                return self._apply(first_seq, payloads)
            case Connect(link):
                self.path.close_replay()
                self.path.open_link(link)
            case Disconnect():
                self.path.close_replay()
                self.path.close_link()
            case RequestReplay(attempt, start):
                self.history.replays.append(self.time.now)
                self.path.open_replay(attempt, start)
            case CancelReplay():
                self.path.close_replay()
            case Clear():
                self.core.clear_publisher(self.name)
                self.forgot()
            case Remove():
                self.core.remove_publisher(self.name)
                self.forgot()
            case Log(_, "publisher_state", fields):
                self.history.states.append((self.time.now, str(fields["after"]), str(fields["reason"])))
        return None

    def resumed(self, last_payload: bytes | None) -> None:
        """The blocks are those of a snapshot, after this payload."""
        self.forgot()
        self.history.last_payload = last_payload

    def forgot(self) -> None:
        """The blocks are gone."""
        self.history.applied.append(Forgotten(self.time.now, self.name))
        self.history.last_payload = None

    def _apply(self, seq: int, payloads: tuple[bytes, ...]) -> tuple[int, str] | None:
        for payload in payloads:
            try:
                self.core.apply(self.name, payload)
            except (DecodeError, CoreError) as error:
                return seq, str(error)
            self.history.applied.append(AppliedBatch(self.time.now, self.name, self._epoch_of(payload), seq))
            self.history.last_payload = payload
            seq += 1
        return None
