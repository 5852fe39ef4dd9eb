"""From histories to verdicts: every planted bug is found on every seed, and a counter-example stands on its own."""

import pytest

from kvsync_testkit.checks import (
    AppliedBatch,
    Forgotten,
    History,
    Isolated,
    Limits,
    Row,
    Sample,
    TrustSample,
    judge,
    require_kept,
)
from kvsync_testkit.checks.model import BUGS, LIMITS, record_history
from kvsync_testkit.errors import ConfigurationError, InvariantError

ALL = [f"I{number}" for number in range(1, 14)]
SEEDS = range(25)
A, B = Row(1, "GPU"), Row(2, "GPU")


def outcomes(history, limits=LIMITS):
    return {verdict.invariant: verdict.outcome for verdict in judge(history, limits=limits)}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_system_without_bugs_keeps_every_promise(seed):
    assert outcomes(record_history(seed)) == dict.fromkeys(ALL, "kept")


@pytest.mark.parametrize("bug", BUGS)
def test_every_planted_bug_is_found_every_time(bug):
    for seed in SEEDS:
        (verdict,) = judge(record_history(seed, bug), [BUGS[bug]], LIMITS)
        assert verdict.outcome == "violated", f"seed {seed}"
        assert verdict.counterexample.invariant == BUGS[bug]


def test_every_invariant_has_a_planted_bug():
    assert sorted(set(BUGS.values())) == sorted(ALL)


@pytest.mark.parametrize("bug", BUGS)
def test_counter_examples_are_a_handful_of_readable_facts(bug):
    (verdict,) = judge(record_history(0, bug), [BUGS[bug]], LIMITS)
    assert len(verdict.counterexample.evidence) <= 3
    first, *facts = str(verdict).splitlines()
    assert first.startswith(f"{BUGS[bug]} violated by ")
    assert len(facts) == len(verdict.counterexample.evidence)
    assert "object at" not in str(verdict)
    assert "(" not in "".join(fact.split("(")[0] for fact in facts)


@pytest.mark.parametrize(("bug", "field"), [("applies duplicates", "applied"), ("never goes stale", "trust")])
def test_the_facts_of_a_counter_example_break_the_promise_alone_and_none_can_be_left_out(bug, field):
    (whole,) = judge(record_history(3, bug), [BUGS[bug]], LIMITS)
    facts = list(whole.counterexample.evidence)
    (alone,) = judge(History(**{field: facts}), [BUGS[bug]], LIMITS)
    assert alone.counterexample == whole.counterexample
    for left_out in range(len(facts)):
        rest = facts[:left_out] + facts[left_out + 1 :]
        (verdict,) = judge(History(**{field: rest}), [BUGS[bug]], LIMITS)
        assert verdict.outcome != "violated"


def test_the_text_of_a_verdict():
    history = History(
        applied=[
            AppliedBatch(1.0, "p", "a", 2),
            AppliedBatch(1.5, "q", "a", 9),
            AppliedBatch(2.0, "p", "a", 3),
            AppliedBatch(2.5, "p", "a", 3),
            AppliedBatch(3.0, "p", "a", 1),
            Forgotten(4.0, "p"),
        ]
    )
    (verdict,) = judge(history, ["I5"])
    assert str(verdict).splitlines() == [
        "I5 violated by p: batch 3 of epoch a applied after batch 3, at 2.500 s (and 1 more)",
        "    2.000 s: batch 3 of epoch a applied",
        "    2.500 s: batch 3 of epoch a applied",
    ]
    with pytest.raises(InvariantError, match="batch 3 of epoch a applied after batch 3"):
        verdict.require()


def test_nothing_to_check_is_never_kept():
    assert outcomes(History()) == dict.fromkeys(ALL, "unchecked")
    assert outcomes(History(truth={"p": {}}, index={"p": {}}))["I1"] == "unchecked"
    assert outcomes(History(sizes=[Sample(0.0, "memory", 1.0)]), Limits())["I11"] == "unchecked"
    with pytest.raises(InvariantError, match="I5 unchecked: the history has no applied"):
        require_kept(History(), ["I5"])


def test_only_what_was_promised_is_required():
    history = History(truth={"p": {A: 1, B: 1}}, index={"p": {A: 1}}, trust=[TrustSample(9.0, "p", True, 1.0)])
    require_kept(history, ["I2"])
    with pytest.raises(InvariantError) as caught:
        require_kept(history, ["I1", "I2", "I9"])
    assert [line[:2] for line in str(caught.value).splitlines() if not line.startswith(" ")] == ["I1", "I9"]
    require_kept(history, ["I9"], Limits(stale_after_s=10.0))


def test_an_index_that_knows_a_publisher_without_an_engine_is_wrong():
    history = History(truth={"p": {A: 1}}, index={"p": {A: 1}, "gone": {B: 1}})
    assert outcomes(history)["I2"] == "violated"


def test_copies_can_be_left_out():
    history = History(truth={"p": {A: 2}}, index={"p": {A: 1}})
    assert outcomes(history)["I1"] == "violated"
    assert outcomes(history, Limits(copies=False))["I1"] == "kept"


def test_isolation_compares_what_was_not_touched():
    case = Isolated({"p": {A: 1}, "q": {B: 1}}, {"p": {}, "q": {B: 1}}, ["p"])
    assert outcomes(History(isolated=[case]))["I4"] == "kept"


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: judge(History(), ["I14"]), "I14"),
        (lambda: record_history(0, "ignores removal"), "did you mean 'ignores removals'"),
    ],
)
def test_unknown_names_are_refused(call, name):
    with pytest.raises(ConfigurationError, match=name):
        call()
