"""The router inside the index's process: its flags, and how it asks the index."""

import asyncio
import contextlib
import socket

import aiohttp
import pytest
from router_helpers import MODEL, FakeIndex, ask, running_engines, running_router

from kvsync_indexer.api import MatchAnswer, MatchRequest, MatchRow
from kvsync_indexer.errors import ConfigError, RequestError, TokenizeError
from kvsync_router.errors import ScorerUnavailableError
from kvsync_router.front import router_front
from kvsync_router.sources.scoring import InProcessScorer
from kvsync_testkit.ports import free_port
from kvsync_testkit.waiting import until


def open_front(**values):
    defaults = {option.name: option.default for option in router_front.options()}
    return router_front.open({**defaults, **values}, host="127.0.0.1", index_port=8090)


def test_without_a_port_there_is_no_front():
    assert open_front(router_port=None) is None


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"router_port": 8090}, "--router-port 8090: is the index's own port; choose another"),
        ({"router_port": 70000}, "--router-port 70000: must be between 0 and 65535"),
        ({"router_port": 1, "router_policy": "x"}, "--router-policy 'x': must be one of kv, least_request"),
        ({"router_port": None, "router_policy": "x"}, "--router-policy 'x': must be one of kv, least_request"),
    ],
)
def test_flags_are_refused_in_one_line(values, problem):
    with pytest.raises(ConfigError) as caught:
        open_front(**values)
    assert str(caught.value).startswith(problem)


def test_a_taken_port_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--router-port {port}: cannot listen on 127.0.0.1:{port}: Address alre"):
            open_front(router_port=port)


def test_a_front_that_is_closed_gives_its_port_back():
    port = free_port()
    open_front(router_port=port).close()
    open_front(router_port=port).close()


async def test_the_front_serves_on_the_index():
    port = free_port()
    async with running_engines("a", "b") as engines:
        server = open_front(router_port=port).server(FakeIndex(engines, {"b": 3}))
        serving = asyncio.create_task(server.serve())
        try:
            await until("the router started", lambda: server.started)
            async with aiohttp.ClientSession() as session:
                status, headers, _ = await ask(session, f"http://127.0.0.1:{port}")
            assert (status, headers["x-kvsync-endpoint"], headers["x-kvsync-matched-tokens"]) == (200, "b", "3")
        finally:
            server.stop(at_once=False)
            await serving
    with contextlib.closing(socket.create_server(("127.0.0.1", port))):
        pass


class Answering:
    """An index that gives one answer, or raises one error."""

    def __init__(self, answer):
        self.answer = answer

    async def match(self, request):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_only_live_publishers_count_in_process_as_over_http():
    rows = [MatchRow(state, state, 0, 4, 64, {}, state, 0.0, False) for state in ("live", "gap", "not_ready")]
    score = await InProcessScorer(Answering(MatchAnswer(16, 4, rows))).score(MatchRequest(MODEL, token_ids=[1]))
    assert score.matched_tokens == {"live": 64}


async def test_a_question_that_the_index_refuses_matches_nothing():
    score = await InProcessScorer(Answering(RequestError(422, "no"))).score(MatchRequest(MODEL, prompt="x"))
    assert score.matched_tokens == {}


@pytest.mark.parametrize("error", [TokenizeError("no engine"), RuntimeError("broken")])
async def test_an_index_that_fails_in_process_is_away(error):
    with pytest.raises(ScorerUnavailableError):
        await InProcessScorer(Answering(error)).score(MatchRequest(MODEL, prompt="x"))


async def test_the_index_in_this_process_has_no_more_time_than_one_over_http():
    class Slow:
        async def match(self, _request):
            await asyncio.Event().wait()

    with pytest.raises(ScorerUnavailableError, match="TimeoutError"):
        await InProcessScorer(Slow(), 0.01).score(MatchRequest(MODEL, prompt="x"))


async def test_a_request_without_a_usable_prompt_is_not_asked_about():
    asked = []

    def matches(request):
        asked.append(request)
        return {}

    async with (
        running_engines("a") as engines,
        running_router(engines, matches) as (_, url),
        aiohttp.ClientSession() as session,
    ):
        for fields in ({"prompt": None}, {"prompt": None, "messages": "text"}, {"prompt": None, "messages": [1]}):
            status, headers, _ = await ask(session, url, **fields)
            assert (status, headers["x-kvsync-policy"]) == (200, "kv")
            assert "x-kvsync-fallback" not in headers
    assert asked == []
