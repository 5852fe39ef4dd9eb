"""A planted bug per invariant, in the history of an otherwise healthy run: the suite's judgement must name it."""

import dataclasses

import pytest

from kvsync_testkit.chaos.backend import Pair
from kvsync_testkit.chaos.faults import CORE, Fault
from kvsync_testkit.chaos.finalread import FinalRead
from kvsync_testkit.chaos.judging import Evidence, judge
from kvsync_testkit.chaos.sampler import NOTICES, Look
from kvsync_testkit.checks import Answer, Row, Sample, Transition, Violation
from kvsync_testkit.checks.routing import Outcome, RequestSent

A, B, C, D = (Row(number, "GPU") for number in range(1, 5))
FAULT = Fault("planted", "pods", "replace", "", "replaced", (*CORE, "I6", "I7", "I10"), silences=True)


def row(at: float, seq: int, state: str = "live", lag_s: float = 0.01) -> dict:
    return dict.fromkeys(NOTICES, 0) | {
        "state": state, "incomplete": False, "last_seq": seq, "epoch": "e", "age_s": 0.1, "lag_s": lag_s, "blocks": 2,
    }  # fmt: skip


def look(at: float) -> Look:
    rows = {"p": row(at, int(at * 2)), "q": row(at, int(at * 2)), "r": row(at, int(at * 2))}
    if at >= 10.0:
        rows.pop("p")
    return Look(at, rows, {name: (2, int(at * 2)) for name in rows})


def healthy() -> Evidence:
    final = FinalRead(
        truth={"p": {A: 1, B: 1}, "q": {A: 1, C: 1}},
        index={"p": {A: 1, B: 1}, "q": {A: 1, C: 1}},
        logs={
            "p": [Transition("stored", D), Transition("cleared"), Transition("stored", A), Transition("stored", B)],
            "q": [Transition("stored", A), Transition("stored", C)],
        },
        answers=[Answer("p", (1, 2), 2), Answer("p", (1,), 1)],
        rows={"p": {"name": "p"}, "q": {"name": "q"}},
        poked="p",
        before_poke={"p": {A: 1, B: 1}, "q": {A: 1, C: 1}},
        after_poke={"p": {A: 1, B: 1, D: 1}, "q": {A: 1, C: 1}},
    )
    return Evidence(
        Pair("p", "q"),
        injected_s=10.0,
        healed_s=20.0,
        recovered_s=22.0,
        final=final,
        looks=[look(number / 2) for number in range(50)],
        sizes=[Sample(at, name, 1000.0 if at else 500.0) for at in (0.0, 9.0) for name in ("memory of the index",)]
        + [Sample(1.0, "descriptors of the index", 40.0)],
        sent=[RequestSent(float(number), number) for number in range(25)],
        outcomes=[Outcome(number + 0.01, number, "answered", 200, "q") for number in range(25)],
    )


def relook(evidence: Evidence, change) -> Evidence:
    looks = []
    for one in evidence.looks:
        rows = {name: dict(fields) for name, fields in (one.rows or {}).items()}
        change(one.at_s, rows)
        looks.append(Look(one.at_s, rows, one.engines))
    return dataclasses.replace(evidence, looks=looks)


def final(evidence: Evidence, **fields) -> Evidence:
    return dataclasses.replace(evidence, final=dataclasses.replace(evidence.final, **fields))


def skips_a_removal(evidence):
    return final(evidence, index={**evidence.final.index, "q": {A: 2, C: 1}})


def keeps_a_dead_block(evidence):
    return final(evidence, index={**evidence.final.index, "p": {A: 1, B: 1, C: 1}})


def forgets_a_replayed_block(evidence):
    return final(evidence, index={**evidence.final.index, "p": {A: 1}})


def shares_a_map_across_pods(evidence):
    return final(evidence, after_poke={"p": {A: 1, D: 1}, "q": {A: 1, C: 1, D: 1}})


def applies_a_late_replay(evidence):
    def change(at, rows):
        if 15.0 <= at < 15.4:
            rows["q"]["last_seq"] = 3

    return relook(evidence, change)


def keeps_a_dead_epoch(evidence):
    logs = {**evidence.final.logs, "p": [Transition("stored", A), Transition("cleared"), Transition("stored", A)]}
    return final(evidence, logs=logs)


def ignores_a_clear(evidence):
    logs = {**evidence.final.logs, "p": [Transition("stored", A), Transition("stored", B), Transition("cleared")]}
    return final(evidence, logs=logs)


def matches_over_a_hole(evidence):
    return final(evidence, answers=[Answer("p", (1, 99, 2), 3)])


def trusts_the_silent(evidence):
    def change(at, rows):
        if 10.0 <= at < 20.0:
            rows["p"] = row(at, 20)

    return relook(evidence, change)


def routes_to_a_deleted_pod(evidence):
    outcomes = [*evidence.outcomes[:24], Outcome(24.01, 24, "answered", 200, "p")]
    return dataclasses.replace(evidence, outcomes=outcomes)


def leaks_descriptors(evidence):
    return dataclasses.replace(evidence, sizes=[*evidence.sizes, Sample(9.0, "descriptors of the index", 5000.0)])


def blocks_on_one_publisher(evidence):
    def change(at, rows):
        if 12.0 <= at < 18.0:
            rows["q"]["lag_s"] = 6.0

    return relook(evidence, change)


def falls_behind_without_saying_so(evidence):
    looks = []
    for one in evidence.looks:
        ahead = 8 if 12.0 <= one.at_s < 18.0 else 0
        looks.append(dataclasses.replace(one, engines={**one.engines, "q": (2, int(one.at_s * 2) + ahead)}))
    return dataclasses.replace(evidence, looks=looks)


def fails_without_its_index(evidence):
    outcomes = [*evidence.outcomes[:12], Outcome(12.01, 12, "refused", 503), *evidence.outcomes[13:]]
    return dataclasses.replace(evidence, outcomes=outcomes)


def loses_a_request(evidence):
    return dataclasses.replace(evidence, outcomes=evidence.outcomes[:-1])


def test_a_healthy_run_keeps_every_invariant():
    judgement = judge(FAULT, healthy())
    assert judgement.violations == []
    assert judgement.unchecked == {}


@pytest.mark.parametrize(
    ("invariant", "bug", "reason"),
    [
        ("I1", skips_a_removal, "another number of copies"),
        ("I2", keeps_a_dead_block, "only in the index: 1"),
        ("I3", forgets_a_replayed_block, "only in the engine: 1"),
        ("I4", shares_a_map_across_pods, "changed by events of others"),
        ("I5", applies_a_late_replay, "batch 3 of epoch e applied after batch"),
        ("I6", keeps_a_dead_epoch, "blocks of a dead process: 1"),
        ("I7", ignores_a_clear, "blocks that a clear took: 2"),
        ("I8", matches_over_a_hole, "block 1 is not in the index"),
        ("I9", trusts_the_silent, "last heard"),
        ("I10", routes_to_a_deleted_pod, "was routed to"),
        ("I10", trusts_the_silent, "is listed by the index"),
        ("I11", leaks_descriptors, "over the limit of 1000"),
        ("I12", blocks_on_one_publisher, "99th percentile of lag 6.0000 s"),
        ("I12", falls_behind_without_saying_so, "99th percentile of lag 3.5000 s"),
        ("I13", fails_without_its_index, "ended with status 503"),
        ("I13", loses_a_request, "request 24 has no outcome"),
        ("I13", routes_to_a_deleted_pod, "went to p"),
    ],
)
def test_every_planted_bug_is_found_for_its_reason(invariant, bug, reason):
    found = judge(FAULT, bug(healthy())).violations
    assert any(one.invariant == invariant and reason in one.detail for one in found), list(map(str, found))


def test_a_disagreement_of_the_control_during_the_fault_is_interference():
    evidence = dataclasses.replace(healthy(), disagreements=[Violation("I1", "q", "only in the engine: 1")])
    assert any(one.invariant == "I12" for one in judge(FAULT, evidence).violations)


@pytest.mark.parametrize(
    ("invariant", "fields"),
    [
        ("I5", {"looks": []}),
        ("I9", {"looks": []}),
        ("I10", {"looks": [look(number / 2) for number in range(25)]}),
        ("I12", {"compared_during": False}),
        ("I13", {"sent": [], "outcomes": []}),
    ],
)
def test_what_was_not_observed_is_not_kept(invariant, fields):
    assert invariant in judge(FAULT, dataclasses.replace(healthy(), **fields)).unchecked


def test_tables_that_were_never_read_are_not_kept():
    evidence = final(healthy(), truth={"p": {}}, index={"p": {}}, logs={}, answers=[], before_poke={}, after_poke={})
    unchecked = judge(FAULT, evidence).unchecked
    assert {"I1", "I2", "I3", "I4", "I7", "I8"} <= set(unchecked)
