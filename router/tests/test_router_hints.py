"""Where a request may or wants to go: subsets, sessions, stored responses, tiers, and prompts routed a moment ago."""

import asyncio
import json
import random

import aiohttp
import pytest
from aiohttp import web
from router_helpers import MODEL, FakeIndex, ask, running_engines, running_router

from kvsync_indexer.api import MatchAnswer, MatchRequest, MatchRow
from kvsync_router.config import RouterConfig
from kvsync_router.decisions.affinity import SessionSource, home
from kvsync_router.decisions.endpoints import EndpointInfo
from kvsync_router.decisions.policies import Candidate
from kvsync_router.decisions.responses import MOST, ResponseHomes
from kvsync_router.decisions.speculation import CHUNK_TOKENS, Speculation
from kvsync_router.decisions.subset import MOST_ENTRIES, SUBSET_HEADER, permitted_names
from kvsync_router.decisions.tiers import TierWeights, parse_tier_weights
from kvsync_router.decisions.trace import new_traceparent, trace_id
from kvsync_router.errors import RouterConfigError
from kvsync_testkit.waiting import until

# -- subsets -------------------------------------------------------------------------------------------------------


POOL = [
    EndpointInfo("pod/0", "http://10.0.0.1:8000", MODEL),
    EndpointInfo("pod/1", "http://[fd00::1]:8000", MODEL),
    EndpointInfo("far", "https://engine.example", MODEL),
    EndpointInfo("broken", "http://10.0.0.1:99999", MODEL),
]


@pytest.mark.parametrize(
    ("hint", "names"),
    [
        ("", set()),
        (" , ", set()),
        ([], set()),
        ("10.0.0.1:8000", {"pod/0"}),
        ("10.0.0.1:8001", set()),
        ("10.0.0.1", {"pod/0"}),
        (" 10.0.0.1:8000 ,[FD00:0::1]:8000,", {"pod/0", "pod/1"}),
        (["10.0.0.1:8000", " pod/1 "], {"pod/0", "pod/1"}),
        ("engine.example:443", {"far"}),
        ("engine.example:80,nonsense::,:,[", set()),
    ],
)
def test_a_hint_permits_addresses_and_names(hint, names):
    assert permitted_names(hint, POOL) == names


def test_a_hint_of_any_length_is_read_in_part():
    assert permitted_names("x," * 2 * MOST_ENTRIES + "pod/0", POOL) == set()
    assert permitted_names("pod/0" + ",x" * 2 * MOST_ENTRIES, POOL) == {"pod/0"}


async def test_a_request_goes_to_its_subset_and_nowhere_else():
    async with (
        running_engines("a", "b") as (a, b),
        running_router([a, b], {"a": 4}) as (_, url),
        aiohttp.ClientSession() as session,
    ):
        hint = {SUBSET_HEADER: f"127.0.0.1:{b.port}"}
        _, headers, _ = await ask(session, url, headers=hint)
        assert headers["x-kvsync-endpoint"] == "b"
        await b.stop()
        status, _, _ = await ask(session, url, headers=hint)
        assert status in (502, 503)
        assert not a.seen
        assert (await ask(session, url, headers={SUBSET_HEADER: ""}))[0] == 503


# -- sessions ------------------------------------------------------------------------------------------------------


def test_a_session_keeps_its_endpoint_when_others_come_and_go():
    four = [Candidate(name) for name in "abcd"]
    homes = {str(number): home(str(number), four).name for number in range(200)}
    assert set(homes.values()) == set("abcd")
    for session, name in homes.items():
        left = [candidate for candidate in four if candidate.name != "a"]
        assert name in ("a", home(session, left[::-1]).name)


@pytest.mark.parametrize(
    ("setting", "headers", "session"),
    [
        ("user", {}, "u"),
        ("header:X-Session-Id", {"x-session-id": "h"}, "h"),
        ("header:X-Session-Id", {}, None),
        ("cookie:sid", {"cookie": "a=b; sid=c; d=e"}, "c"),
        ("cookie:sid", {"cookie": "a=b"}, None),
        ("cookie:sid", {"cookie": '\x00;=;sid"'}, None),
    ],
)
def test_where_a_request_names_its_session(setting, headers, session):
    assert SessionSource.parse(setting).session(headers.get, "u") == session


def test_a_user_that_is_no_name_is_no_session():
    assert SessionSource.parse("user").session({}.get, ["x"]) is None
    assert SessionSource.parse("off") is None


@pytest.mark.parametrize("setting", ["", "header:", "cookie", "ip", "header"])
def test_another_source_of_sessions_is_refused(setting):
    with pytest.raises(RouterConfigError, match="allowed are off, user, header:name or cookie:name"):
        RouterConfig.parse({"session_affinity": setting})


# -- tiers ---------------------------------------------------------------------------------------------------------


def test_a_block_of_a_slow_tier_saves_less():
    weights = TierWeights({"CPU": 0.5})
    assert weights.saved_tokens(64, {"GPU": 4}, 16) == 64
    assert weights.saved_tokens(64, {"GPU": 2, "CPU": 2}, 16) == 48
    assert weights.saved_tokens(64, {"GPU": 1, "CPU": 1}, 16) == 56  # two blocks lie outside every window
    assert weights.saved_tokens(64, {"TAPE": 4}, 16) == 32  # as the lowest weight
    assert weights.saved_tokens(0, {}, 0) == 0


def test_weights_are_read_from_a_flag():
    assert parse_tier_weights("gpu=1, CPU=0.25,") == {"GPU": 1.0, "CPU": 0.25}
    assert parse_tier_weights("") == {}
    for wrong in ("GPU", "GPU=x", "=1", "CPU=1.5", "CPU=-1", "CPU=nan"):
        with pytest.raises(ValueError, match="tier weight"):
            parse_tier_weights(wrong)
        with pytest.raises(RouterConfigError, match="tier weight"):
            RouterConfig.parse({"tier_weights": wrong})


@pytest.mark.parametrize(("weights", "endpoint"), [("CPU=1", "b"), ("CPU=0.1", "a")])
async def test_tier_weights_decide(weights, endpoint):
    class Tiered(FakeIndex):
        async def match(self, _request):
            rows = [("a", 2, {"GPU": 2}), ("b", 3, {"CPU": 3})]
            return MatchAnswer(
                16, 4, [MatchRow(name, name, 0, n, n * 16, tiers, "live", 0.0, False) for name, n, tiers in rows]
            )

    async with (
        running_engines("a", "b") as engines,
        running_router(engines, index=Tiered(engines), tier_weights=weights) as (_, url),
        aiohttp.ClientSession() as session,
    ):
        _, headers, _ = await ask(session, url, prompt=list(range(65)))
        assert headers["x-kvsync-endpoint"] == endpoint
        assert headers["x-kvsync-matched-tokens"] == {"a": "32", "b": "48"}[endpoint]  # what the index said


# -- prompts routed a moment ago -----------------------------------------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ({"token_ids": list(range(128))}, {"token_ids": list(range(300))}),
        ({"prompt": "word " * 103}, {"prompt": "word " * 500}),
    ],
)
def test_a_prompt_that_was_routed_counts_for_a_while(short, long):
    clock = Clock()
    memory = Speculation(2.0, clock)
    chain = memory.chain(MatchRequest("m", **short))
    assert len(chain) == 2
    memory.placed(chain, "a")
    longer = memory.chain(MatchRequest("m", **long))
    assert memory.matched_tokens(longer) == {"a": 2 * CHUNK_TOKENS}
    assert memory.matched_tokens(memory.chain(MatchRequest("m", lora="x", **long))) == {}
    assert memory.matched_tokens(memory.chain(MatchRequest("m", cache_salt="x", **long))) == {}
    clock.now = 1.0
    memory.placed(longer[:1], "b")
    assert memory.matched_tokens(longer) == {"a": 2 * CHUNK_TOKENS, "b": CHUNK_TOKENS}
    clock.now = 2.0
    assert memory.matched_tokens(longer) == {"b": CHUNK_TOKENS}
    memory.failed("b")
    assert memory.matched_tokens(longer) == {}
    clock.now = 2.5
    memory.placed(longer[:1], "b")
    assert memory.matched_tokens(longer) == {"b": CHUNK_TOKENS}


def test_without_a_time_nothing_is_remembered():
    memory = Speculation(0.0, Clock())
    assert memory.chain(MatchRequest("m", token_ids=list(range(300)))) == ()


@pytest.mark.parametrize(("ttl_s", "spread"), [(0.0, True), (60.0, False)])
async def test_requests_with_one_beginning_stay_together_before_the_first_event(ttl_s, spread):
    async with running_engines("a", "b") as engines:

        async def wait(_request):
            await engines[0].release.wait()
            return web.json_response({})

        for engine in engines:
            engine.behave = wait
        async with (
            running_router(engines, {}, speculative_ttl_s=ttl_s) as (_, url),
            aiohttp.ClientSession() as session,
        ):
            asking = []
            for number in range(2):
                body = {"prompt": [*range(640), number]}
                asking.append(asyncio.create_task(ask(session, url, **body)))
                await until("it was sent", lambda n=number: sum(len(one.seen) for one in engines) == n + 1)
            engines[0].release.set()
            answers = await asyncio.gather(*asking)
            assert (len({headers["x-kvsync-endpoint"] for _, headers, _ in answers}) == 2) is spread


# -- stored responses ----------------------------------------------------------------------------------------------


def test_the_homes_of_responses_are_bounded():
    homes = ResponseHomes()
    for number in range(MOST + 1):
        homes.learn(b'{"id": "resp_%d"}' % number, "a")
    assert (homes.get("resp_0"), homes.get("resp_1"), homes.get(None)) == (None, "a", None)
    homes.learn(b'{"id": "chatcmpl-1"}', "a")
    assert homes.get("chatcmpl-1") is None


async def test_a_request_goes_where_the_response_is_that_it_continues():
    async with running_engines("a", "b", "c") as engines:
        for engine in engines:

            async def answer(request, name=engine.name):
                return web.json_response({"id": f"resp_{name}", "object": "response", "path": request.path})

            engine.behave = answer
            engine.stored = answer
        async with running_router(engines) as (_, url), aiohttp.ClientSession() as session:
            _, headers, body = await ask(session, url, "/v1/responses", input="hello")
            first = headers["x-kvsync-endpoint"]
            response = json.loads(body)["id"]
            for _ in range(4):
                _, headers, _ = await ask(session, url, "/v1/responses", input="on", previous_response_id=response)
                assert headers["x-kvsync-endpoint"] == first
                async with session.get(f"{url}/v1/responses/{response}") as got:
                    assert (got.status, got.headers["x-kvsync-endpoint"]) == (200, first)
                    assert (await got.json())["path"] == f"/v1/responses/{response}"


# -- trace context -------------------------------------------------------------------------------------------------

PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("header", "valid"),
    [
        (PARENT, True),
        (PARENT.replace(b"00-", b"cc-", 1) + b"-what-comes-later", True),
        (PARENT + b"-more", False),
        (PARENT.replace(b"00-", b"ff-", 1), False),
        (b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01", False),
        (b"00-0af7651916cd43dd8448eb211c80319c-" + b"0" * 16 + b"-01", False),
        (PARENT.upper(), False),
        (b"", False),
    ],
)
def test_which_trace_parents_are_valid(header, valid):
    assert (trace_id(header) is not None) is valid


def test_a_new_trace_is_valid_and_new():
    rng = random.Random(1)
    made = [new_traceparent(rng) for _ in range(100)]
    assert len({trace_id(each) for each in made} - {None}) == 100


async def test_a_trace_is_passed_on_or_begun():
    async with (
        running_engines("a") as (engine,),
        running_router([engine]) as (_, url),
        aiohttp.ClientSession() as session,
    ):
        given = {"traceparent": PARENT.decode(), "tracestate": "vendor=1"}
        await ask(session, url, headers=given)
        assert {name: engine.seen[0].headers[name] for name in given} == given
        await ask(session, url, headers={"traceparent": "nonsense", "tracestate": "vendor=1"})
        await ask(session, url)
        for request in engine.seen[1:]:
            assert trace_id(request.headers["traceparent"].encode()) is not None
            assert len(request.headers.getall("traceparent")) == 1
            assert "tracestate" not in request.headers
