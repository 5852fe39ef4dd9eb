"""Hypothesis drives machine, core and a faulty world; the dictionary model is the truth kept in `sync_world`."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from sync_helpers import Bench, batch
from sync_world import World

FAULTY = ["silent", "empty", "cut", "holes", "shuffled", "twice"]


class SyncMachine(RuleBasedStateMachine):
    """After every rule the world checks: no false positive, nothing missing where complete, order kept."""

    @initialize(seed=st.integers(0, 1 << 16), retention=st.sampled_from([4, 1000]), epochs=st.booleans())
    def begin(self, seed, retention, epochs):
        self.world = World(seed, retention=retention, epochs=epochs)

    @rule(count=st.integers(1, 6))
    def publish(self, count):
        for _ in range(count):
            self.world.publish()

    @rule(how=st.sampled_from(["lose", "duplicate", "reorder", "poison", "hole"]))
    def publish_badly(self, how):
        self.world.publish(**{how: True})

    @rule(most=st.sampled_from([1, 2, 5, 1000]))
    def deliver(self, most):
        self.world.deliver(most)

    @rule(seconds=st.sampled_from([0.02, 0.2, 1.1, 6.0]))
    def wait(self, seconds):
        self.world.tick(seconds)

    @rule(batches=st.sampled_from([0, 1, 3, 30]))
    def restart(self, batches):
        self.world.restart(batches)

    @rule()
    def crash(self):
        self.world.alive = False
        self.world.network()

    @rule()
    def partition(self):
        self.world.partitioned = not self.world.partitioned

    @rule(mode=st.sampled_from(FAULTY))
    def replay_fault(self, mode):
        self.world.replay_mode = mode

    @rule()
    def replay_heals(self):
        self.world.replay_mode = "ok"

    def teardown(self):
        if hasattr(self, "world"):
            self.world.heal()
            self.world.check_healed()


SyncMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSync = SyncMachine.TestCase


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 5)), max_size=12))
def test_runs_do_what_single_frames_do(runs):
    """`frames` is a quicker `frame`: the same payloads in the same order, the same state."""
    outcomes = []
    for whole in (True, False):
        bench = Bench().live(4)
        applied = []
        for first, count in runs:
            payloads = [batch(seq) for seq in range(first, first + count)]
            if whole:
                bench.do(bench.machine.frames(bench.machine.link, first, payloads, bench.now))
                applied += bench.applied()
                continue
            for seq, payload in enumerate(payloads, first):
                bench.do(bench.machine.frame(bench.machine.link, seq, payload, bench.now))
                applied += bench.applied()
        status = bench.machine.status(bench.now)
        outcomes.append((applied, status, bench.machine.position.tail()))
    assert outcomes[0] == outcomes[1]
