"""What a request could have hit, what it hit, and where the difference comes from."""

import json

import aiohttp
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from router_helpers import FakeIndex, ask, running_engines, running_router

from kvsync_indexer.api import MatchAnswer, MatchRow
from kvsync_router.decisions.journal import MOST_CANDIDATES, MOST_EXPLAIN_BYTES, Journal
from kvsync_router.decisions.policies import Candidate, make_policy
from kvsync_router.decisions.regret import regret_of, usable_tokens
from kvsync_testkit.waiting import until

hits = st.integers(0, 2000)


@given(st.dictionaries(st.sampled_from("abcd"), hits, min_size=1), st.sampled_from("abcd"), hits)
def test_the_causes_explain_the_difference_exactly(matched, chosen, reported):
    regret = regret_of(matched, matched, chosen, reported_tokens=reported)
    if chosen not in matched:
        assert regret is None
        return
    assert regret.available - regret.reported == regret.load + regret.prediction - regret.staleness
    assert min(regret.load, regret.prediction, regret.staleness) >= 0
    assert min(regret.prediction, regret.staleness) == 0


def test_without_a_report_only_the_load_is_known():
    regret = regret_of({"a": 100, "b": 160}, "ab", "a")
    assert (regret.available, regret.chosen, regret.load) == (160, 100, 60)
    assert (regret.reported, regret.prediction, regret.staleness) == (None, 0, 0)


def test_an_endpoint_that_could_not_take_the_request_holds_nothing_available():
    assert regret_of({"a": 100, "b": 160}, ["a"], "a").available == 100


def test_the_last_token_is_always_computed():
    assert usable_tokens(64, 64, 16) == 48
    assert usable_tokens(64, 65, 16) == 64
    assert usable_tokens(64, None, 16) == 64
    assert regret_of({"a": 64, "b": 64}, "ab", "a", block_size=16, prompt_tokens=64, reported_tokens=48).prediction == 0


def test_a_record_keeps_the_best_candidates_and_the_chosen_one():
    journal = Journal(lambda: 7.0)
    record = journal.open("m" * 1000, make_policy("kv", 0), 1000, {"e0003": "stale"})
    candidates = [Candidate(f"e{number:04}", matched_tokens=number) for number in range(500)]
    record.consider(candidates, candidates[3])
    record.chosen = "e0003"
    journal.add(record)
    (view,) = journal.newest()
    names = [row["publisher"] for row in view["candidates"]]
    assert (len(names), names[0], names[1]) == (MOST_CANDIDATES, "e0003", "e0499")
    assert view["candidates"][0]["reason"] == "chosen; its blocks do not count, because its publisher is stale"
    assert view["candidates"][1]["reason"] == "scored better before an attempt failed"
    assert (view["at"], len(view["model"])) == (7.0, 128)
    text = record.explanation()
    assert len(text) <= MOST_EXPLAIN_BYTES
    assert json.loads(text)["chosen"] == "e0003"


def test_the_journal_keeps_the_newest_records():
    journal = Journal(lambda: 0.0, most=2)
    for number in range(3):
        journal.add(journal.open(str(number), make_policy("random", 0), 1, {}))
    assert [view["model"] for view in journal.newest()] == ["2", "1"]
    assert [view["model"] for view in journal.newest(1)] == ["2"]


def value(router, name, **labels):
    return router.metrics.registry.get_sample_value(f"kvsync_router_{name}_total", labels)


class Rows(FakeIndex):
    """An index whose rows a test scripts."""

    rows = ()

    async def match(self, request):
        return MatchAnswer(16, 4, [MatchRow(*row, 0.0, False) for row in self.rows])


async def test_each_request_is_counted_with_its_causes():
    cached = {"a": 32, "b": 32}

    def behave(name):
        async def answer(_request):
            usage = {"prompt_tokens": 65, "prompt_tokens_details": {"cached_tokens": cached[name]}}
            return web.json_response({"usage": usage})

        return answer

    async with running_engines("a", "b") as engines:
        for engine in engines:
            engine.behave = behave(engine.name)
        index = Rows(engines, record=lambda _report: None)
        index.rows = [("a", "a", 0, 1, 16, {"GPU": 1}, "live"), ("b", "b", 0, 4, 64, {"GPU": 4}, "live")]
        async with (
            running_router(engines, index=index, record=print, session_affinity="user") as (router, url),
            aiohttp.ClientSession() as session,
        ):
            for user in ("one", "two", "three", "four", "five", "six"):  # some go to each endpoint
                await ask(session, url, prompt=list(range(65)), user=user)
            chosen = [view["chosen"] for view in router.picker.journal.newest()]
            assert {"a", "b"} == set(chosen)
            a, b = chosen.count("a"), chosen.count("b")
            await until("all are counted", lambda: value(router, "reported_tokens") == 6 * 32)
            assert value(router, "available_tokens") == 6 * 64
            assert value(router, "chosen_tokens") == a * 16 + b * 64
            assert value(router, "regret_tokens", cause="load") == a * 48
            assert value(router, "regret_tokens", cause="staleness") == a * 16
            assert value(router, "regret_tokens", cause="prediction") == b * 32
            assert value(router, "unresolved_requests") == 0
            async with session.get(f"{url}/v1/decisions?limit=2") as response:
                decisions = (await response.json())["decisions"]
            assert len(decisions) == 2
            assert decisions[0]["reported_tokens"] == 32
            assert decisions[0]["available_tokens"] == 64
            assert {row["publisher"] for row in decisions[0]["candidates"]} == {"a", "b"}
            for limit in ("x", "-1", "%C2%B2"):
                async with session.get(f"{url}/v1/decisions?limit={limit}") as response:
                    assert response.status == 400


async def test_an_answer_without_usage_is_unresolved_and_its_load_is_known():
    async with (
        running_engines("a", "b") as engines,
        running_router(engines, {"a": 0, "b": 64}, record=print) as (router, url),
        aiohttp.ClientSession() as session,
    ):
        await ask(session, url)
        await until("it is counted", lambda: value(router, "unresolved_requests") == 1)
        assert value(router, "available_tokens") == 3  # the prompt has four tokens
        assert value(router, "reported_tokens") == 0


async def test_the_journal_and_the_explanation_hold_nothing_of_the_prompt():
    secrets = {"prompt": "the secret text", "cache_salt": "the salt", "user": "the user"}
    async with (
        running_engines("a") as engines,
        running_router(engines, {"a": 3}, session_affinity="user") as (_, url),
        aiohttp.ClientSession() as session,
    ):
        _, headers, _ = await ask(session, url, headers={"x-kvsync-explain": "1"}, **secrets)
        explained = headers["x-kvsync-explain"]
        async with session.get(f"{url}/v1/decisions") as response:
            journal = await response.text()
        assert json.loads(explained)["candidates"][0]["reason"] == "chosen, because the session belongs to it"
        for secret in secrets.values():
            assert secret not in explained + journal
        _, headers, _ = await ask(session, url)
        assert "x-kvsync-explain" not in headers


async def test_a_request_that_no_endpoint_may_take_is_explained_too():
    async with (
        running_engines("a") as engines,
        running_router(engines) as (_, url),
        aiohttp.ClientSession() as session,
    ):
        headers = {"x-kvsync-explain": "1", "x-gateway-destination-endpoint-subset": "10.0.0.1:1"}
        status, headers, body = await ask(session, url, headers=headers)
        assert status == 503
        assert "of the subset" in json.loads(body)["error"]["message"]
        assert json.loads(headers["x-kvsync-explain"])["candidates"] == [
            {"publisher": "a", "score": None, "matched_tokens": 0, "queued": 0, "reason": "not in the subset"}
        ]
