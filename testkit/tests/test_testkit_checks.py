"""Each checker on facts small enough to see: what it lets pass and what it reports."""

import pytest

from kvsync_testkit.checks import (
    Answer,
    AppliedBatch,
    Forgotten,
    Row,
    Sample,
    Transition,
    TrustSample,
    check_agreement,
    check_bounds,
    check_cleared,
    check_counts,
    check_departure,
    check_epoch,
    check_isolation,
    check_no_false_positive,
    check_no_loss,
    check_non_interference,
    check_prefix_closure,
    check_sequence,
    check_staleness,
    parse_rows,
)

A, B, C = Row(1, "GPU"), Row(2, "GPU"), Row(3, "CPU", 1)


def said(violations):
    return [str(one) for one in violations]


def test_agreement():
    assert not check_agreement("p", {A: 1, B: 2}, {B: 2, A: 1})
    assert said(check_agreement("p", {A: 1}, {B: 1})) == [
        "I1 p: only in the engine: 1 (0000000000000001@GPU)",
        "I1 p: only in the index: 1 (0000000000000002@GPU)",
    ]
    assert "2 in the engine, 1 in the index" in said(check_agreement("p", {A: 2}, {A: 1}))[0]
    assert not check_agreement("p", {A: 2}, {A: 1}, copies=False)


def test_false_positive_and_loss_are_the_two_halves():
    truth, index = {A: 1, B: 1}, {B: 1, C: 1}
    assert said(check_no_false_positive("p", truth, index)) == ["I2 p: only in the index: 1 (0000000000000003@CPU/1)"]
    assert said(check_no_loss("p", truth, index)) == ["I3 p: only in the engine: 1 (0000000000000001@GPU)"]
    assert not check_no_false_positive("p", truth, {A: 1})
    assert not check_no_loss("p", {A: 1}, truth)


def test_isolation():
    before = {"p": {A: 1}, "q": {B: 1}}
    assert not check_isolation(before, {"p": {}, "q": {B: 1}}, touched=["p"])
    assert [one.publisher for one in check_isolation(before, {"p": {A: 1}, "q": {B: 2}}, touched=["p"])] == ["q"]
    assert [one.publisher for one in check_isolation(before, {**before, "r": {C: 1}}, touched=["p"])] == ["r"]


def test_sequence():
    def run(*entries):
        return said(check_sequence([AppliedBatch(0.0, "p", e[0], e[1]) if e else Forgotten(0.0, "p") for e in entries]))

    assert not run(("a", 0), ("a", 1), ("a", 5))
    assert not run(("a", 4), (), ("a", 0), ("a", 1))
    assert not run(("a", 4), (), ("b", 0))
    assert "batch 1 of epoch a applied after batch 1" in run(("a", 1), ("a", 1))[0]
    assert "batch 0 of epoch a applied after batch 3" in run(("a", 3), ("a", 0))[0]
    assert "on top of blocks of epoch a" in run(("a", 3), ("b", 4))[0]


def test_epoch():
    assert not check_epoch("p", {A: 1}, {A, B})
    assert "dead process: 1" in said(check_epoch("p", {A: 1, C: 1}, {A, B}))[0]


def test_cleared():
    log = [Transition("stored", A), Transition("stored", C), Transition("cleared"), Transition("stored", B)]
    assert not check_cleared("p", {B: 1}, log)
    assert "1 (0000000000000001@GPU)" in said(check_cleared("p", {A: 1, B: 1}, log))[0]
    tier = [Transition("stored", A), Transition("stored", C), Transition("cleared", medium="CPU")]
    assert not check_cleared("p", {A: 1}, tier)
    assert check_cleared("p", {C: 1}, tier)


def test_prefix_closure():
    index = {"p": {A: 1, B: 1}}
    assert not check_prefix_closure([Answer("p", (1,), 1), Answer("p", (1, 2, 9), 2)], index)
    assert "block 1 is not in the index" in said(check_prefix_closure([Answer("p", (1, 9), 2)], index))[0]
    assert "3 of 2 blocks" in said(check_prefix_closure([Answer("p", (1, 2), 3)], index))[0]
    shrinking = [Answer("p", (1, 2), 2), Answer("p", (1, 2, 9), 1)]
    assert "3 blocks matched 1, their first 2 2" in said(check_prefix_closure(shrinking, index))[0]
    assert not check_prefix_closure([Answer("p", (1, 2), 2), Answer("p", (2, 1), 0)], index)


def test_staleness():
    ok = [TrustSample(5.0, "p", True, 3.0), TrustSample(9.0, "p", False, 3.0)]
    assert not check_staleness(ok, 2.0)
    assert "last heard 2.500 s ago" in said(check_staleness([TrustSample(5.5, "p", True, 3.0)], 2.0))[0]
    assert not check_staleness([TrustSample(5.5, "p", True, 3.0)], 2.0, slack_s=0.5)


def test_departure():
    assert not check_departure("p", 10.0, [(9.0, "routed to"), (10.4, "routed to")], within_s=0.5)
    assert said(check_departure("p", 10.0, [(11.0, "routed to")], 0.5)) == ["I10 p: routed to 1.000 s after it went"]


def test_bounds():
    samples = [Sample(float(at), "memory", 100.0 + at) for at in range(10)]
    assert not check_bounds(samples, {"memory": 109.0})
    assert not check_bounds(samples, {"memory": 109.0}, growth_per_s=1.5)
    assert "109 at 9.000 s, over the limit of 100" in said(check_bounds(samples, {"memory": 100.0}))[0]
    assert "grows by 1 per second" in said(check_bounds(samples, {"memory": 200.0}, growth_per_s=0.5))[0]
    assert said(check_bounds(samples, {"queue": 1.0})) == ["I11 queue: was never measured"]
    assert not check_bounds([Sample(0.0, "queue", 1.0)], {"queue": 1.0}, growth_per_s=0.0)


def test_non_interference():
    quiet = {"q": [0.01] * 100}
    assert not check_non_interference(quiet, {"q": [0.015] * 100}, factor=2.0, floor_s=0.001)
    assert check_non_interference(quiet, {"q": [0.03] * 100}, factor=2.0, floor_s=0.001)
    assert not check_non_interference(quiet, {"q": [0.03] * 100}, factor=2.0, floor_s=0.05)
    assert said(check_non_interference(quiet, {}, 2.0, 0.1)) == ["I12 q: nothing arrived during the fault"]
    wrong = check_no_loss("q", {A: 1}, {})
    assert said(check_non_interference({}, {}, 2.0, 0.1, wrong))[0].startswith("I12 q: during the fault: I3 q: only in")


def test_rows_of_both_sides_read_alike():
    engine = [
        '{"hash": 18446744073709551615, "parent": null, "medium": "GPU", "group_idx": null, "copies": 2}',
        "",
        b'{"hash": "' + b"00" * 24 + b'ffffffffffffffff", "medium": "cpu", "group_idx": 1, "copies": 1}',
    ]
    index = [
        '{"hash": -1, "medium": null, "copies": 2, "attached": true}',
        '{"hash": -1, "medium": "CPU", "group_idx": 1}',
    ]
    assert parse_rows(engine) == parse_rows(index) == {Row(2**64 - 1, "GPU"): 2, Row(2**64 - 1, "CPU", 1): 1}


@pytest.mark.parametrize("line", ["{", "[]", '{"medium": "GPU"}', '{"hash": "xyz"}', '{"hash": 1, "copies": "many"}'])
def test_bad_rows_are_named_by_line(line):
    with pytest.raises(ValueError, match="line 2 is no block"):
        parse_rows(['{"hash": 1}', line])


def test_counts():
    assert not check_counts("p", {"batches": 3, "more": 1}, {"batches": 3})
    assert said(check_counts("p", {"batches": 3}, {"batches": 2, "blocks": 1})) == [
        "C1 p: batches: 3 reported, 2 observed",
        "C1 p: blocks: None reported, 1 observed",
    ]
