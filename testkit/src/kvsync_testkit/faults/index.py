"""The index's side of one publisher: the real follower and a real core, driven as the ingest thread drives them."""

from collections.abc import Callable, Sequence

from kvsync_events import Removals, digest_key
from kvsync_indexer.core import IndexCore
from kvsync_indexer.latency import StreamMeter
from kvsync_indexer.sync import Follower, Log, PublisherMachine, SyncSettings
from kvsync_testkit.checks import Row, TrustSample
from kvsync_testkit.clock import VirtualClock
from kvsync_testkit.faults.dying import SurvivingMark
from kvsync_testkit.faults.engine import ModelProcess, Published
from kvsync_testkit.faults.network import Path
from kvsync_testkit.faults.recording import IndexHistory, RecordingCore

MODEL = "model"


class IndexSide:
    """One follower with its sockets, which lead over the simulated path.

    `on_settled` is called after every input, when the blocks are at rest.
    """

    def __init__(
        self,
        name: str,
        machine: PublisherMachine,
        follower: type[Follower],
        core: IndexCore,
        path: Path,
        time: VirtualClock,
        identify: Callable[[bytes], tuple[ModelProcess, Published]],
        on_settled: Callable[["IndexSide"], None],
        mark: SurvivingMark,
        history: IndexHistory | None = None,
        removals: Removals | None = None,
    ) -> None:
        self.name = name
        self.machine = machine
        self.settings: SyncSettings = machine.settings
        self.path = path
        self.time = time
        self.history = history or IndexHistory()
        self.removed = False
        self.first_life = 0
        """Earlier lives than this one have ended, as discovery says."""
        self.matched = False
        """Queries match the publisher, as far as its follower has announced."""
        self.changed_while_matched: list[float] = []
        """When blocks changed although the machine did not trust them and queries still matched them."""
        self.completed_early: list[str] = []
        """When the follower assumed a turnover that had not taken place."""
        self._on_settled = on_settled
        path.listener = self
        core.add_publisher(name, MODEL)
        self.core = RecordingCore(core, self.history, time, identify, self._before_change, mark)
        self.follower = follower(
            machine,
            self.core,
            self,
            StreamMeter(lambda: time.now),
            guard=mark,
            trust_changed=self._trust_changed,
            log=self._log,
        )
        self.follower.engine_is(None, removals, time.now)

    def rows(self) -> dict[Row, int]:
        """Return the index's block table for this publisher."""
        if self.name not in self.core.publishers():
            return {}
        return {Row(digest_key(row.hash), row.medium, row.group_idx): row.copies for row in self.core.dump(self.name)}

    def digests(self) -> tuple[tuple[str, int, str], ...]:
        """Return (medium, count, digest) of every tier that holds something, by medium."""
        if self.name not in self.core.publishers():
            return ()
        return tuple((row.medium, row.count, row.digest_hex) for row in self.core.digest(self.name))

    # -- inputs -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """The index begins to follow the publisher."""
        self.follower.start(self.time.now)
        self._settle()

    def on_connected(self, link: int) -> None:
        """See Listener, for this and the following."""
        self.follower.connected(link, self.time.now)
        self._settle()

    def on_disconnected(self, link: int) -> None:
        """The connection ended."""
        self.follower.disconnected(link, self.time.now)
        self._settle()

    def on_messages(self, link: int, messages: Sequence[tuple[int, bytes]]) -> None:
        """One read of the event socket."""
        self.follower.receive(link, messages, self.time.now)
        self._settle()

    def on_bad_frame(self, link: int) -> None:
        """A message that is no publication."""
        self.follower.bad_frame(link, "2 frames", self.time.now)
        self._settle()

    def on_item(self, attempt: int, seq: int, payload: bytes) -> None:
        """A replayed batch."""
        self.follower.replay_item(attempt, seq, payload, self.time.now)
        self._settle()

    def on_end(self, attempt: int) -> None:
        """The end marker."""
        self.follower.replay_end(attempt, self.time.now)
        self._settle()

    def on_refused(self, attempt: int) -> None:
        """The replay socket failed."""
        self.follower.replay_failed(attempt, "refused", self.time.now)
        self._settle()

    def epoch(self, epoch: str) -> None:
        """Discovery says which process it is: the number of its life."""
        self.first_life = int(epoch)
        self.follower.epoch_changed(epoch, self.time.now)
        self._settle()

    def depart(self) -> None:
        """Discovery says that the publisher is gone."""
        self.follower.removed(self.time.now)
        self.removed = True
        self._settle()

    def tick(self, heartbeat_s: float, *, heartbeats: bool) -> None:
        """Run the timers, as the ingest thread does."""
        now, turnovers = self.time.now, self.follower.totals.turnovers
        if heartbeats and self.path.alive_link:
            self.path.heard_s = now
            self.follower.alive(now - heartbeat_s, now)
        self.follower.tick(now)
        if self.follower.totals.turnovers != turnovers:
            self._check_turnover()
        self._settle()
        self.history.trust.append(TrustSample(now, self.name, self.matched, self.path.heard_s))

    def _check_turnover(self) -> None:
        """The follower took the cache to have turned over: what was applied must bear it out."""
        history, (resident, orphans) = self.history, self.core.sizes(self.name)
        if not history.cleared:
            history.assumed_complete = True
            if not resident or orphans or len(history.evicted) < resident:
                found = f"{len(history.evicted)} of {resident} blocks evicted at {self.time.now:.3f} s, {orphans} wait"
                self.completed_early.append(found)

    # -- what the follower requests ---------------------------------------------------------------------------------

    def connect(self, link: int) -> None:
        """See PublisherSockets, for this and the following."""
        self.path.replays.close()
        self.path.open_link(link)

    def disconnect(self) -> None:
        """Close every open socket."""
        self.path.replays.close()
        self.path.close_link()

    def request_replay(self, attempt: int, start: int) -> None:
        """Request batches on a fresh socket."""
        self.history.replays.append(self.time.now)
        self.path.replays.open(attempt, start)

    def cancel_replay(self) -> None:
        """Close the replay socket."""
        self.path.replays.close()

    # -- what is observed -------------------------------------------------------------------------------------------

    def _trust_changed(self) -> None:
        self.matched = self.follower.trusted

    def _before_change(self) -> None:
        if self.matched and not self.machine.trusted:
            self.changed_while_matched.append(self.time.now)

    def _log(self, line: Log) -> None:
        if line.event == "publisher_state":
            self.history.states.append((self.time.now, str(line.fields["after"]), str(line.fields["reason"])))

    def _settle(self) -> None:
        history = self.history
        history.most_buffered = max(history.most_buffered, len(self.machine.stream.buffer))
        if self.removed:
            if self.name in self.core.publishers():
                history.after_removal.append((self.time.now, "blocks in the index"))
            if self.matched:
                history.after_removal.append((self.time.now, "matched"))
        self._on_settled(self)
