"""Hypothesis drives machine, core and a faulty world; the dictionary model is the truth kept in `sync_world`."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
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
