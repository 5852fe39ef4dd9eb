"""The follower between scripted sockets and a real core: runs, refusals, trust, turnover and what it counts."""

import msgpack
import pytest

from kvsync_events import AllBlocksCleared, BlockRemoved, BlockStored, EventBatch, WireForm, encode_batch
from kvsync_indexer.core import CoreLimits, PythonCore
from kvsync_indexer.latency import StreamMeter
from kvsync_indexer.sync import SUSPECT, TRUSTED, Follower, PublisherMachine, State, SyncSettings

FORM = WireForm.for_version("0.33.0")
NAME = "p"


class Sockets:
    """Writes down what the follower requests."""

    def __init__(self):
        self.calls = []

    def connect(self, link):
        self.calls.append(("connect", link))

    def disconnect(self):
        self.calls.append(("disconnect",))

    def request_replay(self, attempt, start):
        self.calls.append(("request_replay", attempt, start))

    def cancel_replay(self):
        self.calls.append(("cancel_replay",))


class CountingCore(PythonCore):
    """Writes down the sizes of the runs, and fails when told to."""

    def __init__(self, **limits):
        super().__init__(CoreLimits(**limits))
        self.runs = []
        self.fails_after = None

    def apply(self, publisher, payload):
        self.runs.append(1)
        return super().apply(publisher, payload)

    def apply_many(self, publisher, payloads, budget=None):
        if self.fails_after is not None:
            super().apply_many(publisher, payloads[: self.fails_after])
            raise RuntimeError("a defect")
        applied = super().apply_many(publisher, payloads, budget)
        self.runs.append(applied.payloads)
        return applied


class Rig:
    """A follower in sync with an empty history, and its surroundings."""

    def __init__(self, core=None, settings=None, matched=TRUSTED):
        self.now = 100.0
        self.wall = 1000.0
        self.core = core or CountingCore()
        self.core.add_publisher(NAME, "m")
        self.sockets = Sockets()
        self.trust = []
        self.log = []
        machine = PublisherMachine(NAME, settings or SyncSettings(), now=self.now, epoch="1")
        self.meter = StreamMeter(lambda: self.wall)
        self.follower = Follower(
            machine,
            self.core,
            self.sockets,
            self.meter,
            matched=matched,
            trust_changed=lambda: self.trust.append(self.follower.trusted),
            log=self.log.append,
        )
        self.machine = machine
        self.follower.start(self.now)

    def live(self):
        self.follower.connected(self.machine.link, self.now)
        self.follower.replay_end(self.machine.replays.session.attempt, self.now)
        assert self.machine.state is State.LIVE
        self.core.runs.clear()
        return self

    def receive(self, *messages, link=None):
        self.follower.receive(self.machine.link if link is None else link, messages, self.now)

    def held(self):
        return {row.hash for row in self.core.dump(NAME)}


def stored(*hashes, made=999.5, size=1, medium=None):
    event = BlockStored(list(hashes), None, list(range(size * len(hashes))), size, medium=medium)
    return encode_batch(EventBatch(made, [event], 0), FORM)


def removed(*hashes):
    return encode_batch(EventBatch(999.5, [BlockRemoved(list(hashes))], 0), FORM)


def child(block, parent):
    return encode_batch(EventBatch(999.5, [BlockStored([block], parent, [7], 1)], 0), FORM)


def cleared(medium):
    event = {"type": "AllBlocksCleared"} | ({} if medium is None else {"medium": medium})
    return bytes(msgpack.packb([999.5, [event], 0]))


def unknown_event():
    return bytes(msgpack.packb([999.5, [{"type": "BlocksTrimmed", "block_hashes": [1]}], 0]))


BROKEN = b"\xc1"


def test_batches_that_follow_on_go_to_the_core_in_one_call():
    rig = Rig().live()
    rig.receive(*((seq, stored(seq)) for seq in range(5)))
    assert rig.core.runs == [5]
    assert rig.follower.totals.batches == 5
    assert rig.held() == set(range(5))


def test_a_run_ends_at_a_jump_in_the_sequence():
    rig = Rig().live()
    rig.receive((0, stored(0)), (1, stored(1)), (4, stored(4)), (5, stored(5)))
    assert rig.core.runs == [2]
    assert rig.machine.state is State.GAP
    assert rig.held() == {0, 1}
    assert rig.sockets.calls[-1] == ("request_replay", 2, 0)


@pytest.mark.parametrize("place", range(4))
def test_the_refused_batch_of_a_run_is_named(place):
    rig = Rig().live()
    rig.receive(*((seq, BROKEN if seq == place else stored(seq)) for seq in range(4)))
    assert rig.machine.state is State.QUARANTINED
    assert rig.machine.reason.startswith(f"batch {place}:")
    assert rig.machine.next_seq == place
    assert rig.held() == set(range(place))
    assert rig.follower.totals.batches == place
    assert rig.sockets.calls[-1] == ("disconnect",)


def test_a_batch_over_a_limit_is_named_by_the_core():
    rig = Rig(CountingCore(max_blocks=3)).live()
    rig.receive(*((seq, stored(2 * seq, 2 * seq + 1)) for seq in range(3)))
    assert rig.machine.reason.startswith("batch 1:")
    assert rig.held() == {0, 1}


def test_a_core_that_fails_within_a_run_keeps_no_blocks_of_it():
    rig = Rig().live()
    rig.receive((0, stored(0)))
    rig.core.fails_after = 1
    rig.receive((1, stored(1)), (2, BROKEN))  # the defect comes first, whatever else is wrong with the run
    assert rig.held() == set()
    assert rig.machine.incomplete
    assert rig.machine.next_seq == 1
    assert rig.machine.state is State.QUARANTINED
    assert [line.event for line in rig.log if line.level == "exception"] == ["apply_crashed"]


def test_evictions_from_before_a_failure_do_not_make_the_rest_complete():
    rig = Rig().live()
    rig.receive((0, stored(1, 2)), (1, removed(1, 2)))
    rig.core.fails_after = 0
    rig.receive((2, stored(3)), (3, stored(4)))
    assert not rig.follower.turnover.moved


def test_the_history_that_a_failure_cost_is_repaired():
    rig = Rig(settings=SyncSettings(quarantine_s=0.1, repair_s=0.5)).live()
    rig.receive((0, stored(0)), (1, stored(1)))
    rig.core.fails_after = 1
    rig.receive((2, stored(2)), (3, stored(3)))
    rig.core.fails_after = None

    def replay():
        attempt, start = rig.sockets.calls[-1][1:]
        for seq in range(start, 4):
            rig.follower.replay_item(attempt, seq, stored(seq), rig.now)
        rig.follower.replay_end(attempt, rig.now)

    rig.now += 0.2
    rig.follower.tick(rig.now)
    rig.follower.connected(rig.machine.link, rig.now)
    replay()
    assert (rig.machine.state, rig.machine.incomplete, rig.held()) == (State.LIVE, True, {2, 3})
    rig.now += 0.6
    rig.follower.tick(rig.now)
    replay()
    assert (rig.machine.state, rig.machine.incomplete, rig.held()) == (State.LIVE, False, {0, 1, 2, 3})


def test_what_an_abandoned_link_brought_is_dropped():
    rig = Rig().live()
    old = rig.machine.link
    rig.follower.epoch_changed("2", rig.now)
    rig.follower.connected(rig.machine.link, rig.now)
    rig.follower.replay_end(rig.machine.replays.session.attempt, rig.now)
    rig.receive((0, stored(0)), (1, stored(1)), link=old)
    assert rig.held() == set()
    assert rig.machine.counters.fenced == 2


def test_nothing_behind_a_refused_batch_is_applied():
    rig = Rig().live()
    rig.receive((0, stored(0)), (1, BROKEN), (5, stored(5)), (0, stored(0)))
    assert rig.held() == {0}


def test_trust_is_withdrawn_before_blocks_go_and_given_after_they_came():
    seen = []

    class Watched(CountingCore):
        def clear_publisher(self, publisher):
            seen.append(("clear", rig.follower.trusted))
            return super().clear_publisher(publisher)

        def apply(self, publisher, payload):
            seen.append(("apply", rig.follower.trusted))
            return super().apply(publisher, payload)

    rig = Rig(Watched()).live()
    rig.receive((0, stored(0)))
    rig.receive((0, stored(7)))  # another process
    rig.follower.replay_item(rig.machine.replays.session.attempt, 0, stored(7), rig.now)
    rig.follower.replay_end(rig.machine.replays.session.attempt, rig.now)
    assert seen == [("apply", True), ("clear", False), ("apply", False)]
    assert rig.trust == [True, False, True]


def test_suspect_publishers_are_matched_until_they_are_stale():
    rig = Rig(matched=SUSPECT).live()
    rig.follower.disconnected(rig.machine.link, rig.now)
    assert rig.machine.state is State.CONNECTING
    assert rig.trust == [True]
    rig.follower.tick(rig.now + 60.0)
    assert rig.machine.state is State.STALE
    assert rig.trust == [True, False]


def incomplete_rig():
    rig = Rig(settings=SyncSettings(replay=False))
    rig.follower.connected(rig.machine.link, rig.now)
    rig.receive((3, stored(1, 2, 3)))
    assert rig.machine.incomplete
    return rig


def turn_over(rig, *hashes):
    """Store and evict blocks that are known, and let the follower judge."""
    for each in hashes:
        rig.receive((rig.machine.next_seq, stored(each)), (rig.machine.next_seq + 1, removed(each)))
    rig.follower.tick(rig.now)


def test_a_cache_that_turned_over_is_complete():
    rig = incomplete_rig()
    turn_over(rig, 77, 78)
    assert rig.machine.incomplete  # 2 evicted, 3 resident
    turn_over(rig, 79)
    assert not rig.machine.incomplete
    assert rig.follower.totals.turnovers == 1


def test_the_same_block_over_and_over_is_no_turnover():
    rig = incomplete_rig()
    turn_over(rig, *[77] * 20)
    assert rig.machine.incomplete


def test_a_removal_of_an_unknown_block_begins_the_turnover_anew():
    rig = incomplete_rig()
    turn_over(rig, 77, 78)
    rig.receive((rig.machine.next_seq, removed(1234)))
    turn_over(rig, 79)
    assert rig.machine.incomplete
    turn_over(rig, 80, 81)
    assert not rig.machine.incomplete


def test_no_cache_turns_over_while_blocks_wait_for_their_parent():
    """A hot prompt from before the history is never evicted: only its children, which wait, show that it is there."""
    rig = incomplete_rig()
    rig.receive((4, child(50, parent=49)))
    turn_over(rig, *range(100, 120))
    assert rig.machine.incomplete
    rig.receive((rig.machine.next_seq, removed(50)))
    turn_over(rig, *range(200, 203))
    assert not rig.machine.incomplete


@pytest.mark.parametrize("sign", ["orphan", "unknown removal"])
def test_a_sign_of_unknown_blocks_takes_back_an_assumption(sign):
    rig = incomplete_rig()
    turn_over(rig, 77, 78, 79)
    assert not rig.machine.incomplete
    rig.receive((rig.machine.next_seq, child(50, parent=49) if sign == "orphan" else removed(49)))
    assert rig.machine.incomplete


def test_a_sign_of_unknown_blocks_does_not_outweigh_a_whole_history():
    rig = Rig().live()
    rig.receive((0, stored(1)), (1, removed(49)), (2, child(50, parent=49)))
    assert not rig.machine.incomplete


@pytest.mark.parametrize(("medium", "complete"), [(None, True), ("GPU", False)])
def test_only_a_clear_of_the_whole_cache_leaves_nothing_unknown(medium, complete):
    rig = incomplete_rig()
    rig.receive((4, cleared(medium)))
    rig.follower.tick(rig.now)
    assert rig.machine.incomplete is not complete


def test_evictions_of_unknown_blocks_do_not_make_a_full_cache_complete():
    rig = incomplete_rig()
    for seq in range(4, 40, 2):  # each new block takes the place of an unknown one; others may still be there
        rig.receive((seq, removed(1000 + seq)), (seq + 1, stored(seq)))
    rig.follower.tick(rig.now)
    assert rig.machine.incomplete


def test_an_untouched_cache_is_not_measured_in_every_tick():
    rig = incomplete_rig()
    rig.core.sizes = None  # would raise if called
    rig.follower.tick(rig.now)
    rig.follower.tick(rig.now)


def test_an_event_of_an_unknown_type_costs_the_blocks_that_it_may_have_removed():
    rig = Rig().live()
    rig.receive((0, stored(1, 2)))
    rig.receive((1, unknown_event()))
    assert rig.held() == set()
    assert rig.machine.incomplete
    assert rig.machine.state is State.LIVE
    assert "unknown type" in rig.machine.reason
    assert rig.machine.counters.resyncs == 1
    rig.receive((2, stored(3)))
    assert rig.held() == {3}


def test_a_clear_of_the_cache_ends_the_doubt_after_an_unknown_event():
    rig = Rig().live()
    rig.receive((0, stored(1, 2)), (1, unknown_event()))
    rig.receive((2, stored(4)), (3, cleared(None)))
    rig.follower.tick(rig.now)
    assert not rig.machine.incomplete


def test_a_clear_begins_the_turnover_anew():
    rig = incomplete_rig()
    for each in (77, 78, 79):
        rig.receive((rig.machine.next_seq, stored(each)), (rig.machine.next_seq + 1, removed(each)))
    rig.receive((20, stored(10, 11, 12)))  # a gap: the blocks are dropped when the grace is over
    rig.now += 1.0
    rig.follower.tick(rig.now)
    assert rig.held() == {10, 11, 12}
    assert rig.machine.incomplete


def test_the_block_size_is_that_of_the_first_event_with_tokens():
    rig = Rig().live()
    offloaded = encode_batch(EventBatch(1.0, [BlockStored([5], None, [], 0, medium="CPU")], 0), FORM)
    rig.receive((0, offloaded))
    assert rig.follower.totals.block_size is None
    rig.receive((1, stored(1, size=16)), (2, stored(2, size=8)))
    assert rig.follower.totals.block_size == 16


def test_delays_are_counted_on_arrival_and_once_they_can_be_matched():
    rig = Rig()
    rig.follower.connected(rig.machine.link, rig.now)
    rig.receive((0, stored(0, made=999.0)))  # waits for the replay
    assert rig.follower.totals.lag_s == pytest.approx(1.0)
    rig.follower.replay_item(rig.machine.replays.session.attempt, 0, stored(0, made=999.0), rig.now)
    rig.follower.replay_end(rig.machine.replays.session.attempt, rig.now)
    rig.receive((1, stored(1)), (2, stored(2)))
    assert sum(rig.meter.arrival.counts) == 3
    assert sum(rig.meter.visible.counts) == 2
    assert rig.meter.bytes_in == sum(map(len, (stored(0), stored(0), stored(1), stored(2))))


def test_a_removed_publisher_leaves_the_core_and_hears_nothing():
    rig = Rig().live()
    rig.follower.removed(rig.now)
    assert rig.core.publishers() == []
    assert rig.trust == [True, False]
    rig.receive((0, stored(0)))
    assert rig.core.runs == []


def test_a_batch_without_its_time_has_no_delay():
    rig = Rig().live()
    rig.receive((0, b"\x93" + b"\x05" + b"\x90" + b"\x00"))
    assert sum(rig.meter.arrival.counts) == 0


def of_rank(rank, *events):
    return encode_batch(EventBatch(999.5, list(events), rank), FORM)


@pytest.mark.parametrize("rank", [1, 127, 200, 300])
def test_batches_of_another_rank_are_refused(rank):
    rig = Rig().live()
    rig.receive((0, stored(1, 2)), (1, of_rank(rank, AllBlocksCleared())), (2, stored(3)))
    assert rig.machine.state is State.QUARANTINED
    assert f"ranks 0 and {rank} share one stream" in rig.machine.reason
    assert rig.held() == {1, 2}
    assert rig.trust == [True, False]


@pytest.mark.parametrize("first", [True, False])
def test_a_batch_that_was_cut_off_names_no_rank(first):
    cut = next(
        payload[:end]
        for number in range(100)
        for payload in [of_rank(0, BlockStored([number], None, list(range(60)), 60))]
        for end in range(len(payload) // 2, len(payload))
        if payload[end - 1] in range(1, 128)
    )
    rig = Rig().live()
    before = [] if first else [(0, stored(1))]
    rig.receive(*before, (len(before), cut))
    assert rig.machine.state is State.QUARANTINED
    assert "share one stream" not in rig.machine.reason
    assert rig.follower._ranks.rank == (None if first else 0)


@pytest.mark.parametrize("rank", [None, 3, 200])
def test_a_stream_of_one_rank_is_taken_whatever_its_number(rank):
    rig = Rig().live()
    for seq in range(3):
        rig.receive((seq, of_rank(rank, BlockStored([seq], None, [7], 1))))
    assert rig.machine.state is State.LIVE
    assert rig.held() == {0, 1, 2}


def test_a_new_process_may_have_another_rank():
    rig = Rig().live()
    rig.receive((0, stored(1)))
    rig.follower.epoch_changed("2", rig.now)
    rig.follower.connected(rig.machine.link, rig.now)
    rig.follower.replay_end(rig.machine.replays.session.attempt, rig.now)
    rig.receive((0, of_rank(1, BlockStored([9], None, [7], 1))))
    assert rig.machine.state is State.LIVE
    assert rig.held() == {9}


def test_others_get_their_turn_when_the_work_of_one_call_is_done():
    rig = Rig()
    turns = []
    rig.follower._between = lambda: turns.append(len(rig.held()))
    rig.live()
    big = [stored(*range(30_000 * number, 30_000 * number + 30_000)) for number in range(3)]
    rig.receive((0, stored(1)), (1, stored(2)), *enumerate(big, 2), (5, stored(3)))
    assert rig.core.runs == [4, 2]
    assert turns == [60_000]
    assert rig.follower.totals.batches == 6


class Guard:
    """Names one payload, and one run."""

    def __init__(self, aside, run=()):
        self.aside, self.run, self.begun, self.ended = aside, run, [], 0

    def begin(self, publisher, first_seq, payloads):
        self.begun.append((publisher, first_seq, len(payloads)))

    def end(self):
        self.ended += 1

    def is_set_aside(self, publisher, seq, payload):
        return (publisher, seq) == self.aside

    def applies_singly(self, publisher, seq):
        return seq in self.run or (publisher, seq) == self.aside


def test_what_is_being_applied_is_marked():
    rig = Rig()
    guard = rig.follower._guard = Guard(None, run=(1, 2))
    rig.live()
    rig.receive(*((seq, stored(seq)) for seq in range(5)), (7, BROKEN))
    assert guard.begun == [(NAME, 0, 1), (NAME, 1, 1), (NAME, 2, 1), (NAME, 3, 2)]
    assert guard.ended == 4


def test_a_payload_that_ended_an_earlier_process_is_left_out():
    rig = Rig(settings=SyncSettings(quarantine_s=0.1))
    rig.follower._guard = Guard((NAME, 1))
    rig.follower.connected(rig.machine.link, rig.now)
    for seq in range(3):
        attempt = rig.machine.replays.session.attempt
        rig.follower.replay_item(attempt, seq, stored(seq), rig.now)
    rig.follower.replay_item(rig.machine.replays.session.attempt, 2, stored(2), rig.now)
    rig.follower.replay_end(rig.machine.replays.session.attempt, rig.now)
    assert (rig.machine.state, rig.machine.incomplete) == (State.LIVE, True)
    assert rig.held() == {2}
    assert rig.follower.totals.set_aside == 1
