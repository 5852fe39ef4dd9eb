"""A machine brought into any of its states, and every input it can get, for the table test."""

from dataclasses import replace

from kvsync_indexer.sync import Apply, PublisherMachine, State, SyncSettings

SETTINGS = SyncSettings(overlap=2, replay_attempts=2, flap_limit=3)
T0 = 1000.0


def batch(seq, process="a"):
    """The payload a process sends under a sequence number."""
    return f"{process}{seq}".encode()


class Bench:
    """A machine, a clock and what the driver has been told."""

    def __init__(self, settings=SETTINGS, *, replay=True, **how):
        self.now = T0
        settings = replace(settings, replay=replay)
        self.machine = PublisherMachine("p", settings, now=self.now, **how)
        self.actions = []
        self.process = "a"

    def do(self, actions):
        self.actions = actions
        return actions

    def names(self):
        """Action types of the last answer, log lines left out."""
        return [type(action).__name__ for action in self.actions if type(action).__name__ != "Log"]

    def applied(self):
        return [payload for action in self.actions if isinstance(action, Apply) for payload in action.payloads]

    def start(self):
        return self.do(self.machine.start(self.now))

    def connected(self):
        return self.do(self.machine.connected(self.machine.link, self.now))

    def frame(self, seq, process=None, link=None):
        process = process or self.process
        link = self.machine.link if link is None else link
        return self.do(self.machine.frame(link, seq, batch(seq, process), self.now))

    def item(self, seq, process=None, attempt=None):
        process = process or self.process
        session = self.machine.replays.session
        attempt = attempt if attempt is not None else session.attempt if session else 0
        return self.do(self.machine.replay_item(attempt, seq, batch(seq, process), self.now))

    def end(self, attempt=None):
        session = self.machine.replays.session
        attempt = attempt if attempt is not None else session.attempt if session else 0
        return self.do(self.machine.replay_end(attempt, self.now))

    def fail(self):
        session = self.machine.replays.session
        return self.do(self.machine.replay_failed(session.attempt if session else 0, "broken", self.now))

    def tick(self, after=0.0):
        self.now += after
        return self.do(self.machine.tick(self.now))

    def live(self, upto=10):
        """In sync with batches 0..upto-1 of process a."""
        self.start()
        self.connected()
        if not self.machine.settings.replay:
            for seq in range(upto):
                self.frame(seq)
            return self
        for seq in range(upto):
            self.item(seq)
        self.end()
        assert self.machine.state is State.LIVE
        return self


def in_state(state, **how):
    """A bench in `state`, having applied batches 0..9 before (but for the first connection)."""
    bench = Bench(**how)
    machine = bench.machine
    if state is State.CONNECTING:
        bench.live()
        bench.do(machine.disconnected(machine.link, bench.now))
    elif state is State.REPLAYING:
        bench.start()
        bench.connected()
    elif state is State.GAP:
        bench.live()
        bench.frame(12)
    elif state is State.RESTART:
        bench.live()
        bench.process = "b"
        bench.frame(0)
    elif state is State.STALE:
        bench.live()
        bench.tick(SETTINGS.stale_after_s + 0.1)
    elif state is State.QUARANTINED:
        bench.live()
        bench.do(machine.bad_frame(machine.link, "nonsense", bench.now))
    elif state is State.RESYNCING:
        bench.live()
        bench.frame(12)
        bench.item(9)
    elif state is State.LIVE:
        bench.live()
    elif state is State.REMOVED:
        bench.live()
        bench.do(machine.removed(bench.now))
    assert machine.state is state, machine.state
    return bench


INPUTS = {
    "connected": lambda b: b.connected(),
    "connected, old link": lambda b: b.do(b.machine.connected(b.machine.link - 1, b.now)),
    "disconnected": lambda b: b.do(b.machine.disconnected(b.machine.link, b.now)),
    "disconnected, old link": lambda b: b.do(b.machine.disconnected(b.machine.link - 1, b.now)),
    "frame, next": lambda b: b.frame(b.machine.next_seq),
    "frame, ahead": lambda b: b.frame(20),
    "frame, applied before": lambda b: b.frame(b.machine.next_seq - 1 if b.machine.next_seq else 0),
    "frame, other bytes": lambda b: b.frame(max(0, b.machine.next_seq - 1), "c"),
    "frame, old link": lambda b: b.frame(b.machine.next_seq, link=b.machine.link - 1),
    "bad frame": lambda b: b.do(b.machine.bad_frame(b.machine.link, "nonsense", b.now)),
    "bad frame, old link": lambda b: b.do(b.machine.bad_frame(b.machine.link - 1, "nonsense", b.now)),
    "item, next": lambda b: b.item(b.machine.next_seq),
    "item, ahead": lambda b: b.item(15),
    "item, applied before": lambda b: b.item(b.machine.next_seq - 1 if b.machine.next_seq else 0),
    "item, other bytes": lambda b: b.item(max(0, b.machine.next_seq - 1), "c"),
    "item, old attempt": lambda b: b.item(b.machine.next_seq, attempt=-1),
    "end": lambda b: b.end(),
    "end, old attempt": lambda b: b.end(attempt=-1),
    "replay failed": lambda b: b.fail(),
    "apply failed": lambda b: b.do(b.machine.apply_failed(max(0, b.machine.next_seq - 1), "bad", b.now)),
    "alive": lambda b: b.do(b.machine.alive(b.now, b.now)),
    "same epoch": lambda b: b.do(b.machine.epoch_changed("e1", b.now)),
    "new epoch": lambda b: b.do(b.machine.epoch_changed("e2", b.now)),
    "tick": lambda b: b.tick(0.001),
    "tick, replay silent": lambda b: b.tick(SETTINGS.replay_timeout_s + 0.001),
    "tick, nothing heard": lambda b: b.tick(SETTINGS.stale_after_s + 0.001),
    "removed": lambda b: b.do(b.machine.removed(b.now)),
}
