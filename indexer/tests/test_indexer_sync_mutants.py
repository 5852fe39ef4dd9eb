"""Planted bugs: the schedules' checks must catch each, or they check nothing."""

import pytest
from test_indexer_sync_schedules import run_schedule

from kvsync_indexer.sync import PublisherMachine, State


class IgnoresGaps(PublisherMachine):
    """A hole in the sequence is stepped over, as most indexers do."""

    def _open_gap(self, seq, payload, now):
        self._apply(seq, payload)


class KeepsDeadBlocks(PublisherMachine):
    """A restart is noticed and the old blocks stay."""

    def _clear(self, reason):
        return None


class TrustsNumbersOnly(PublisherMachine):
    """No look at the bytes: a successor that overtook the last number passes."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.position._digest = lambda payload: 0


class AppliesLiveDuringReplay(PublisherMachine):
    """Live batches do not wait; the replay that comes later brings removed blocks back."""

    def _wait(self, seq, payload, now):
        self._apply(seq, payload)


class NeverVerifies(PublisherMachine):
    """A lost tail and an idle restart go unnoticed."""

    def _tick_live(self, now):
        return None


class ForgetsTruncation(PublisherMachine):
    """History that does not reach back is taken for complete."""

    def _give_up_until(self, seq, reason, now):
        self.position.skip_to(seq)

    def _take(self, session, seq, payload):
        self.incomplete = False
        session.fresh += 1
        self._apply(seq, payload)


class TrustsTooEarly(PublisherMachine):
    """Trusted as soon as something was heard."""

    @property
    def trusted(self):
        return self.state in (State.LIVE, State.GAP, State.RESYNCING, State.REPLAYING)


MUTANTS = [
    IgnoresGaps, KeepsDeadBlocks, TrustsNumbersOnly, AppliesLiveDuringReplay, NeverVerifies, ForgetsTruncation,
    TrustsTooEarly,
]  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_planted_bugs_are_caught(mutant):
    for seed in range(400):
        try:
            run_schedule(seed, machine=mutant).check_healed()
        except AssertionError:
            return
    raise AssertionError(f"{mutant.__name__} passed 400 schedules")
