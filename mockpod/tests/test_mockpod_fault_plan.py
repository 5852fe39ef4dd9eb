"""The fault plan without sockets: what is refused, which numbers fire, and the order in which batches are sent."""

import random

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvsync_events import BlockStored, EventBatch, WireForm, decode_batch, encode_batch
from kvsync_mockpod.errors import ConfigError
from kvsync_mockpod.faults.active import ActiveFaults
from kvsync_mockpod.faults.outbox import Outbox, Outgoing
from kvsync_mockpod.faults.payload import damage, with_wrong_parents
from kvsync_mockpod.faults.spec import parse_plan


def plane(*faults, seed=1):
    made = ActiveFaults()
    made.set(parse_plan({"seed": seed, "faults": list(faults)}))
    return made


def fired(of, numbers, rank=0):
    return [number for number in numbers if of.on_batch(rank, number)]


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ([], "plan"),
        ({"faults": [{"kind": "dropp"}]}, "faults.0.kind: 'dropp' refused; allowed: drop_unnumbered, drop,"),
        ({"faults": [{}]}, "faults.0.kind"),
        ({"faults": [{"kind": "drop", "rte": 0.5}]}, "faults.0.rte: unknown field; did you mean 'rate'?"),
        ({"faults": [{"kind": "drop", "rate": 2}]}, "faults.0.rate: '2' refused"),
        ({"faults": [{"kind": "drop", "rate": 0.5, "at": [1]}]}, "exclude each other"),
        ({"faults": [{"kind": "http_error", "status": 200}]}, "faults.0.status"),
        ({"sed": 1}, "did you mean 'seed'?"),
    ],
)
def test_a_bad_plan_is_one_line(plan, says):
    with pytest.raises(ConfigError) as refused:
        parse_plan(plan)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_chosen_numbers_fire_once_each():
    of = plane({"kind": "drop", "at": [3, 5]})
    assert fired(of, [0, 1, 2, 3, 4, 5, 6]) == [3, 5]
    assert fired(of, [3, 5]) == [], "a restarted sequence does not repeat them"
    assert of.shown()["faults"][0] == {"kind": "drop", "at": [3, 5], "id": 0, "seen": 9, "fired": 2}


def test_rates_are_drawn_from_the_seed_within_the_window_and_the_limit():
    rule = {"kind": "drop", "rate": 0.3, "since": 100, "until": 900, "limit": 150}
    once, again = fired(plane(rule), range(1000)), fired(plane(rule), range(1000))
    assert once == again
    assert once[0] >= 100
    assert len(once) == 150
    assert once != fired(plane(rule, seed=2), range(1000))
    free = fired(plane({"kind": "drop", "rate": 0.3}), range(10_000))
    assert 2700 < len(free) < 3300


def test_a_rule_without_trigger_fires_always_and_a_rank_is_spared():
    of = plane({"kind": "delay", "rank": 1})
    assert fired(of, range(3), rank=0) == []
    assert fired(of, range(3), rank=1) == [0, 1, 2]


def test_faults_of_the_publisher_itself_happen_at_once_without_a_trigger():
    of = plane({"kind": "stall"}, {"kind": "restart", "at": [2]})
    assert [fault.kind for fault in of.at_once(0)] == ["stall"]
    assert fired(of, range(4)) == [2]


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.integers(1, 4)), max_size=30))
@settings(max_examples=100, deadline=None)
def test_everything_pushed_leaves_exactly_once_and_unheld_batches_keep_their_order(moves):
    outbox, out, now = Outbox(), [], 0.0
    for seq, (delay, held, after) in enumerate(moves):
        message = Outgoing(seq, b"")
        if held:
            outbox.hold(message, after, now + 5.0)
        else:
            outbox.push(message, now, delay)
        now += 0.3
        out += outbox.take(now)
    due = outbox.next_due_s()
    assert (due is None) == (len(outbox) == 0)
    out += outbox.take(now + 10.0)
    assert sorted(message.seq for message in out) == list(range(len(moves)))
    plain = [message.seq for message in out if not moves[message.seq][1]]
    assert plain == sorted(plain)


def test_a_held_batch_leaves_after_the_number_of_others_it_was_given():
    outbox = Outbox()
    outbox.hold(Outgoing(0, b""), 2, 100.0)
    for seq in (1, 2, 3):
        outbox.push(Outgoing(seq, b""), 0.0)
    assert [message.seq for message in outbox.take(0.0)] == [1, 2, 0, 3]


def test_a_stall_holds_everything_and_keeps_the_order():
    outbox = Outbox()
    outbox.push(Outgoing(0, b""), 0.0, 0.5)
    outbox.stall(2.0)
    outbox.push(Outgoing(1, b""), 1.0)
    assert outbox.take(1.9) == []
    assert outbox.next_due_s() == 2.0
    assert [message.seq for message in outbox.take(2.0)] == [0, 1]


def test_each_kind_of_payload_damage():
    event = BlockStored([b"\1" * 32], None, list(range(16)), 16)
    payload = encode_batch(EventBatch(1.0, [event], 0), WireForm.for_version("0.33.0"))
    (corrupt, truncate, oversize) = parse_plan(
        {"faults": [{"kind": "corrupt", "count": 3}, {"kind": "truncate"}, {"kind": "oversize", "size": 5000}]}
    ).faults
    changed = damage(payload, corrupt, random.Random(1))
    assert len(changed) == len(payload)
    assert 1 <= sum(a != b for a, b in zip(payload, changed, strict=True)) <= 3
    assert damage(payload, truncate, random.Random(1)) == payload[: len(payload) // 2]
    large = damage(payload, oversize, random.Random(1))
    assert len(large) == 5000
    assert msgpack.unpackb(large)[:3] == msgpack.unpackb(payload)
    assert decode_batch(large).events == decode_batch(payload).events
    (wrong,) = with_wrong_parents([event], random.Random(1))
    assert wrong.parent_block_hash is not None
    assert wrong.block_hashes == event.block_hashes
    assert event.parent_block_hash is None
