"""The parts of a demo's report: legs, verdict, wrong answers, reasons of placements, and next steps."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from kvsync.demo.answers import count_answers, count_answers_after_kill
from kvsync.demo.drawing import draw_blocks, draw_trust
from kvsync.demo.headline import headline
from kvsync.demo.legs import Leg, plan_legs
from kvsync.demo.next_steps import KeptRun, list_next_steps
from kvsync.demo.routing import AWAY, HELD, IN_TURN, NEW, NONE, PART, Explainer
from kvsync.demo.settling import AuditTotals
from kvsync.demo.verdict import COMPARE_FROM, judge
from kvsync.load.client import Outcome


def make_outcome(number, **given):
    fields = {
        "ok": True, "sent_s": float(number), "ttft_s": 0.1, "ended_s": number + 1.0, "prompt_tokens": 100,
        "cached_tokens": 0, "output_tokens": 1, "issues": 1, "endpoint": "a", "matched_tokens": 0, "policy": "kv",
    }  # fmt: skip
    return Outcome(number=number, **fields | given)


def make_result(leg, hit_ratio=0.1, requests=1000, failed=0, differences=0, restart=None):
    summary = SimpleNamespace(hit_ratio=hit_ratio, requests=requests, failed=failed)
    return SimpleNamespace(leg=leg, summary=summary, audit=AuditTotals(3, 10, differences), restart=restart)


def test_policies_run_on_untouched_engines_and_the_kill_has_a_leg_of_its_own():
    legs = plan_legs(("round_robin", "kv", "random"), kill=True)
    assert [(leg.name, leg.folder) for leg in legs] == [
        ("round_robin", "round_robin"),
        ("kv", "kv"),
        ("random", "random"),
        ("kv, kill -9", "kv-kill"),
    ]
    assert plan_legs(("random",), kill=True)[-1] == Leg("random", kill=True)
    assert plan_legs(("random",), kill=False) == [Leg("random")]


def test_correctness_decides_and_a_comparison_that_means_nothing_does_not():
    worse = [make_result(Leg("round_robin"), 0.2, 60), make_result(Leg("kv"), 0.1, 60)]
    verdict = judge(worse, 3)
    assert verdict.passed
    assert f"the comparison needs more requests: the hit ratios of the policies are judged from {COMPARE_FROM}" in (
        verdict.note
    )
    assert "one engine" in judge([make_result(Leg(name)) for name in ("round_robin", "kv")], 1).note
    assert not judge([*worse, make_result(Leg("kv", kill=True), failed=1)], 3).passed
    assert not judge([*worse, make_result(Leg("kv", kill=True), differences=1)], 3).passed
    missed = SimpleNamespace(publisher="a", detected_s=None, live_s=None)
    assert judge([make_result(Leg("kv", kill=True), restart=missed)], 3).reasons == (
        "kv, kill -9: the index did not notice the restart of a",
    )


def test_a_comparison_of_enough_requests_counts_and_leaves_out_the_leg_with_the_kill():
    legs = [make_result(Leg("round_robin"), 0.2), make_result(Leg("kv"), 0.3), make_result(Leg("kv", kill=True), 0.1)]
    assert judge(legs, 3).reasons == ()
    legs[1] = make_result(Leg("kv"), 0.2)
    assert judge(legs, 3).reasons == ("the hit ratio of kv is not above that of round_robin (0.2000 against 0.2000)",)


def test_an_answer_is_wrong_if_it_names_more_than_the_engine_had():
    outcomes = [
        make_outcome(0, matched_tokens=48, cached_tokens=48),
        make_outcome(1, matched_tokens=48, cached_tokens=16),
        make_outcome(2, matched_tokens=16, cached_tokens=48),
        make_outcome(3, matched_tokens=96, cached_tokens=80, prompt_tokens=96),  # the last token is always computed
        make_outcome(4, matched_tokens=None, cached_tokens=16),
        make_outcome(5, matched_tokens=48, policy="least_request"),
        make_outcome(6, matched_tokens=48, ok=False),
    ]
    assert count_answers(outcomes, "kv", 16).as_json() == {
        "answers": 4,
        "wrong": 1,
        "wrong_tokens": 32,
        "incomplete": 1,
    }


def test_only_answers_about_the_killed_engine_after_its_death_count_as_such():
    wrong = {"matched_tokens": 48, "cached_tokens": 0}
    outcomes = [make_outcome(0, **wrong), make_outcome(5, **wrong), make_outcome(6, endpoint="b", **wrong)]
    assert count_answers_after_kill(outcomes, "kv", 16, "a", killed_s=3.0).wrong == 1


def test_the_reason_of_a_placement_is_what_the_chosen_engine_held():
    explainer = Explainer("kv", (0, 16, 64, 64, 64, 64))
    assert explainer.common_tokens == 16
    reasons = [
        explainer.explain(make_outcome(number, matched_tokens=matched, **given))
        for number, matched, given in (
            (0, 0, {}),
            (1, 16, {}),
            (2, 64, {}),
            (3, 32, {}),
            (4, 16, {}),
            (5, None, {"policy": "least_request"}),
        )
    ]
    assert reasons == [NEW, NEW, HELD, PART, NONE, AWAY]
    assert Explainer("random", (0, 64)).explain(make_outcome(1, policy="random")) == IN_TURN


def test_examples_lie_around_the_moment_and_leave_out_new_prompts():
    explainer = Explainer("kv", (0, *(16 if number % 2 else 64 for number in range(1, 60))))
    outcomes = [make_outcome(number, matched_tokens=64) for number in range(60)]
    examples = explainer.choose_examples(outcomes, around_s=30.0)
    assert [example["request"] for example in examples] == [22, 24, 26, 28, 30, 32, 34, 36]
    assert explainer.choose_examples(outcomes[:3], around_s=99.0)[0]["request"] == 2
    assert Counter(explainer.count(outcomes)["a"]) == {NEW: 31, HELD: 29}


@pytest.mark.parametrize("out", ["out/demo", "else where"])
def test_next_steps_name_the_folder_only_if_it_is_not_the_default(out):
    kept = KeptRun("http://127.1.0.4:8090", "http://127.1.0.250:8080", {"e-0": "127.1.0.1", "e-1": "127.1.0.2"}, "it's")
    steps = dict(list_next_steps(kept, Path(out), "e-0", "kvsync"))
    assert steps["End everything"] == ("kvsync stop" if out == "out/demo" else "kvsync stop --out 'else where'")
    assert any(command.startswith("kvsync tail tcp://127.1.0.2:5557") for command in steps.values())
    assert any(command.endswith("""'it'"'"'s'""") for command in steps.values())
    assert len(list_next_steps(None, Path(out), None, "kvsync")) == 1
    alone = KeptRun("http://i", "http://r", {"e-0": "127.1.0.1"}, None)
    assert any("127.1.0.1" in command for _, command in list_next_steps(alone, Path(out), "e-0", "kvsync"))


def make_report(answers):
    curve = {"at_s": [0.1, 0.2, 0.3, 0.4], "blocks": [5, 6, 6, 2], "state": ["live", "live", "connecting", "live"]}
    leg = {"hit_ratio": 0.3, "cached_tokens": 30, "prompt_tokens": 100, "publishers": {"e-0": curve}}
    restart = {
        "performed": True, "policy": "kv", "publisher": "e-0", "killed_at_s": 0.25, "detected_s": 0.05,
        "started_at_s": 0.3, "live_s": 0.1, "leg": leg, "answers_after_kill": answers,
    }  # fmt: skip
    return {
        "policies": {"round_robin": leg | {"cached_tokens": 10}, "kv": leg},
        "restart": restart,
        "ideal_hit_ratio": 1,
    }


def test_the_headline_shows_what_was_measured():
    wrong = headline(make_report({"answers": 8, "wrong": 2}))[-1]
    assert (wrong.value, wrong.tone) == ("2", "bad")
    none = headline(make_report({"answers": 0, "wrong": 0}))[-1]
    assert (none.value, none.tone) == ("-", "")
    assert headline(make_report({"answers": 8, "wrong": 0}))[1].note == (
        "of 100 prompt tokens; 3.0 times as many as round_robin"
    )


def test_blocks_of_a_dead_process_are_not_drawn_and_the_band_shows_why():
    report = make_report({"answers": 1, "wrong": 0})
    assert draw_blocks(report).series[0].points == [(0.1, 5), (0.2, 6), (0.3, 6), (0.3, 0), (0.4, 0), (0.4, 2)]
    bands = draw_trust(report).rows[0].bands
    assert [(band.state, band.begin, band.end) for band in bands] == [
        ("live", 0.0, 0.3),
        ("connecting", 0.3, 0.4),
        ("live", 0.4, 0.4),
    ]
