"""`kvsync doctor --router`: each reason why `kv` gains nothing is found, and told apart from the others."""

import json

import pytest
from cli_helpers import invoke
from prometheus_client import generate_latest

from kvsync.checks.routing import RouterFigures, diagnose, read_figures
from kvsync_indexer.api import PublisherRow
from kvsync_router.decisions.endpoints import EndpointStats
from kvsync_router.decisions.regret import Regret
from kvsync_router.metrics import RouterMetrics

GOOD = {
    "requests": 100,
    "by_policy": {"kv": 100},
    "endpoints": 2,
    "endpoints_up": 2,
    "prompt": 100_000,
    "available": 60_000,
    "chosen": 58_000,
    "reported": 58_000,
    "load": 2_000,
}
LIVE = [PublisherRow(name=name, model="m", state="live", blocks=100) for name in "ab"]


def problems(publishers=LIVE, **changes):
    found = diagnose(RouterFigures(**{**GOOD, **changes}), publishers)
    return [each.what for each in found if each.level == "problem"]


def test_a_router_that_gains_has_no_problem():
    assert problems() == []
    *_, last = diagnose(RouterFigures(**GOOD), LIVE)
    assert (last.level, last.what) == ("ok", "routing")
    assert last.detail.startswith("58% of the prompt tokens were cached where they went; 3% of")


NONE = {"available": 0, "chosen": 0, "load": 0, "reported": 0}


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("engines", {"endpoints": 1, "endpoints_up": 1}),
        ("engines", {"endpoints_up": 0}),
        ("policy", {"by_policy": {"round_robin": 100}}),
        ("index", {"fallbacks": 30}),
        ("prompts", {"prompt": 2_000, "available": 500, "chosen": 500, "reported": 500, "load": 0}),
        ("prompts", NONE),
        ("tokenizer", {**NONE, "reported": 40_000, "staleness": 40_000}),
        ("staleness", {"reported": 90_000, "staleness": 32_000}),
        ("prediction", {"reported": 30_000, "prediction": 28_000}),
        ("load", {"chosen": 20_000, "reported": 20_000, "load": 40_000}),
        ("load", {"busy_endpoints": 2}),
        ("admission", {"refused": 30}),
    ],
)
def test_each_reason_is_found_alone(what, changes):
    assert problems(**changes) == [what]


@pytest.mark.parametrize(
    ("publishers", "what"),
    [
        ([], "no publisher is live (there are none)"),
        ([PublisherRow(name="a", model="m", state="stale")], "no publisher is live (stale)"),
        ([PublisherRow(name="a", model="m", state="live", blocks=0)], "announced no block"),
        ([*LIVE, PublisherRow(name="c", model="m", state="gap")], "c is gap"),
    ],
)
def test_missing_events_are_no_wrong_tokenizer(publishers, what):
    changes = {**NONE, "reported": 40_000, "staleness": 40_000} if not any(row.blocks for row in publishers) else {}
    found = [each for each in diagnose(RouterFigures(**{**GOOD, **changes}), publishers) if each.level == "problem"]
    assert [each.what for each in found] == ["events"]
    assert what in found[0].detail
    assert found[0].next_step


def test_few_requests_say_little():
    findings = list(diagnose(RouterFigures(**{**GOOD, "requests": 3}), LIVE))
    assert [each.what for each in findings] == ["engines", "requests"]


def test_engines_that_report_nothing_are_noted():
    found = diagnose(RouterFigures(**{**GOOD, "reported": 0, "unresolved": 100}), LIVE)
    assert "reports" in [each.what for each in found if each.level == "note"]


def router_metrics():
    def stats(name, healthy, queued):
        return EndpointStats(name, "http://x", healthy, 3, queued, 0, 0, 0, 0, 0)

    metrics = RouterMetrics(lambda: [stats("a", True, 2), stats('b"},1', False, 0)])
    metrics.requests.labels("kv", "ok").inc(5)
    metrics.requests.labels("kv", "refused").inc(2)
    metrics.requests.labels("least_request", "ok").inc()
    metrics.fallbacks.inc()
    metrics.prompt_tokens.inc(900)
    metrics.regret.count(Regret(100, 60, 70))
    metrics.regret.count(Regret(100, 100, 80))
    metrics.regret.count(None)
    return generate_latest(metrics.registry).decode()


def test_the_figures_are_those_of_a_router():
    assert read_figures(router_metrics()) == RouterFigures(
        requests=8,
        by_policy={"kv": 7, "least_request": 1},
        refused=2,
        fallbacks=1,
        endpoints=2,
        endpoints_up=1,
        busy_endpoints=1,
        prompt=900,
        available=200,
        chosen=160,
        reported=150,
        load=40,
        staleness=10,
        prediction=20,
        unresolved=1,
    )


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--index", "http://x"], "--index needs --router"),
        (["--router", "http://x", "--cluster"], "exclude each other"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(arguments, what):
    code, _, err = invoke("doctor", *arguments)
    assert code == 2
    assert what in err


def test_a_router_that_is_not_there_is_a_problem_with_a_next_step():
    code, out, _ = invoke("doctor", "--router", "http://127.0.0.1:1", "--json")
    (finding,) = map(json.loads, out.splitlines())
    assert (code, finding["what"], finding["next_step"]) == (1, "router", "pass --router URL")
