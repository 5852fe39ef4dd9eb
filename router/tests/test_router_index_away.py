"""Routing with an index over HTTP: what it is asked, and that nothing breaks when it is not there (I13)."""

import asyncio
import contextlib
import json
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
import yaml
from router_helpers import MODEL, HttpIndex, ask, free_socket, running_engines, running_router

from kvsync_indexer.api import MatchRequest
from kvsync_indexer.client import AsyncIndexClient
from kvsync_router.config import RouterConfig
from kvsync_router.errors import DirectoryUnavailableError, RouterConfigError, ScorerUnavailableError
from kvsync_router.sources.client import HttpClient
from kvsync_router.sources.directory import FileDirectory, HttpDirectory
from kvsync_router.sources.scoring import HttpScorer
from kvsync_testkit.ports import free_port
from kvsync_testkit.waiting import until

ROUTER = str(Path(sys.executable).parent / "kvsync-router")


@contextlib.asynccontextmanager
async def routed_by(index, **settings):
    """A router that knows its endpoints and scores from `index` alone."""
    await index.start()
    client = HttpClient()
    config = RouterConfig.parse({"index_backoff_s": 0.0, **settings})
    scorer = HttpScorer(
        AsyncIndexClient(index.url, session=client, timeout_s=config.match_timeout_s),
        asyncio.get_running_loop().time,
        config.index_backoff_s,
    )
    directory = HttpDirectory(AsyncIndexClient(index.url, session=client))
    try:
        async with (
            running_router([], directory=directory, scorer=scorer, client=client, **settings) as (router, url),
            aiohttp.ClientSession() as session,
        ):
            yield router, url, session
    finally:
        await index.stop()


async def test_only_trusted_matches_count():
    async with running_engines("a", "b") as engines:
        index = HttpIndex(engines, [("a", 64, "gap"), ("b", 16, "live"), ("gone", 99, "live")])
        async with routed_by(index) as (router, url, session):
            _, headers, _ = await ask(session, url, prompt=list(range(100)), cache_salt="s")
            assert (headers["x-kvsync-endpoint"], headers["x-kvsync-matched-tokens"]) == ("b", "16")
            assert headers["x-kvsync-policy"] == "kv"
            assert index.asked == [{"model": MODEL, "cache_salt": "s", "token_ids": list(range(100))}]
            assert [row.name for row in router.table.statistics()] == ["a", "b"]


async def test_text_and_messages_are_passed_on_for_the_index_to_tokenize():
    async with running_engines("a") as engines:
        index = HttpIndex(engines, [])
        async with routed_by(index) as (_, url, session):
            await ask(session, url, prompt="some text")
            messages = [{"role": "user", "content": "hi"}]
            await ask(session, url, "/v1/chat/completions", prompt=None, messages=messages)
            assert index.asked == [{"model": MODEL, "prompt": "some text"}, {"model": MODEL, "messages": messages}]


@pytest.mark.parametrize("fault", ["down", "hang", "error"])
async def test_index_away_falls_back_to_load_and_comes_back(fault):
    async with running_engines("a", "b") as engines:
        index = HttpIndex(engines, [("b", 4, "live")])
        async with routed_by(index, match_timeout_s=0.2) as (router, url, session):
            if fault == "down":
                await index.stop()
            index.hang, index.status = fault == "hang", 500 if fault == "error" else 200
            answers = [await ask(session, url) for _ in range(4)]
            assert [status for status, _, _ in answers] == [200] * 4
            assert {headers["x-kvsync-policy"] for _, headers, _ in answers} == {"least_request"}
            assert {headers["x-kvsync-fallback"] for _, headers, _ in answers} == {"index-away"}
            assert {headers["x-kvsync-matched-tokens"] for _, headers, _ in answers} == {"0"}
            text = await (await session.get(f"{url}/metrics")).text()
            assert "kvsync_router_fallbacks_total 4.0" in text
            if fault == "down":
                await index.start()
            index.hang, index.status = False, 200

            async def answered_by_the_index():
                """A busy machine may miss the time-out of 0.2 s again: what counts is that the index is asked again."""
                _, headers, _ = await ask(session, url)
                return headers if headers["x-kvsync-policy"] == "kv" else None

            headers = await until("the index is used again", answered_by_the_index)
            assert headers["x-kvsync-endpoint"] == "b"
            assert "x-kvsync-fallback" not in headers
            assert len(router.table) == 2


async def _answers(scorer, query, now):
    """The scorer gets an answer, without a match; a busy machine may miss its short time-out several times before."""

    async def probe():
        now[0] += 1.5  # longer than the back-off
        return await scorer.score(query)

    score = await until("an answer of the index", probe, retry_on=(ScorerUnavailableError,))
    assert score.matched_tokens == {}


async def test_after_a_failure_the_index_is_left_alone_for_a_while():
    index = HttpIndex([], [])
    await index.start()
    now = [0.0]
    client = HttpClient()
    await client.start()
    scorer = HttpScorer(AsyncIndexClient(index.url, session=client, timeout_s=0.5), lambda: now[0], backoff_s=1.0)
    query = MatchRequest(MODEL, token_ids=[1])
    try:
        index.hang = True
        for _ in range(3):
            with pytest.raises(ScorerUnavailableError):
                await scorer.score(query)
        assert len(index.asked) == 1
        index.hang = False
        await _answers(scorer, query, now)
        index.status = 422  # refuses this question: no match, but not away
        await _answers(scorer, query, now)
    finally:
        await client.stop()
        await index.stop()


async def test_a_text_that_takes_long_keeps_no_token_ids_from_the_index():
    index = HttpIndex([], [])
    await index.start()
    client = HttpClient()
    await client.start()
    scorer = HttpScorer(AsyncIndexClient(index.url, session=client, timeout_s=0.5), lambda: 0.0, backoff_s=1.0)
    try:
        index.hang = True
        for _ in range(3):
            with pytest.raises(ScorerUnavailableError):
                await scorer.score(MatchRequest(MODEL, prompt="x"))
        assert len(index.asked) == 1
        with pytest.raises(ScorerUnavailableError, match=r"no answer within 0.5 s"):  # asked, and not left alone
            await scorer.score(MatchRequest(MODEL, token_ids=[1]))
        assert len(index.asked) == 2
    finally:
        await client.stop()
        await index.stop()


def test_publishers_file_is_read_again_when_it_changes(tmp_path):
    path = tmp_path / "publishers.yaml"
    rows = [
        {"name": "a", "model": MODEL, "http_url": "http://h/", "endpoint": "tcp://h:1"},
        {"name": "b", "model": "m", "endpoint": "tcp://h:2"},
    ]
    path.write_text(yaml.safe_dump(rows))
    directory = FileDirectory(path)
    assert [(info.name, info.url, info.rank) for info in directory.read()] == [("a", "http://h", None)]
    rows = [dict(rows[0], rank=rank) for rank in (0, 1)]
    path.write_text(yaml.safe_dump(rows))
    assert [(info.name, info.rank) for info in directory.read()] == [("a/0", 0), ("a/1", 1)]
    path.write_text("- name: [")
    with pytest.raises(RouterConfigError, match="publishers"):
        directory.read()


async def test_a_bad_version_of_the_publishers_file_keeps_the_endpoints(tmp_path):
    path = tmp_path / "publishers.yaml"
    path.write_text(json.dumps([{"name": "a", "model": MODEL, "http_url": "http://h", "endpoint": "tcp://h:1"}]))
    directory = FileDirectory(path)
    directory.read()
    path.write_text("- name: [")
    with pytest.raises(DirectoryUnavailableError, match="not YAML"):
        await directory.endpoints()
    assert [info.name for info in await directory.endpoints()] == ["a"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"polcy": "kv"}, "unknown field polcy; did you mean policy?"),
        ({"attempts": 0}, "attempts = 0"),
        ({"policy": "x"}, "policy = 'x'"),
    ],
)
def test_configuration_is_refused_in_one_line(values, says):
    with pytest.raises(RouterConfigError) as caught:
        RouterConfig.parse(values)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def run_router(*args):
    done = subprocess.run([ROUTER, *map(str, args)], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr.strip()


def test_the_command_refuses_what_it_cannot_use(tmp_path):
    code, err = run_router()
    assert (code, err) == (
        2,
        "kvsync-router: give --index-url, --publishers, or both: the router has no endpoints without",
    )
    code, err = run_router("--publishers", tmp_path / "none.yaml")
    assert code == 2
    assert err.endswith("none.yaml: No such file or directory")
    with free_socket() as taken:
        port = taken.getsockname()[1]
        code, err = run_router("--index-url", "http://127.0.0.1:1", "--host", "127.0.0.1", "--port", port)
    assert (code, err) == (2, f"kvsync-router: cannot listen on 127.0.0.1:{port}: Address already in use")


async def test_the_command_routes_and_ends_on_sigterm(tmp_path):
    port = free_port()
    async with running_engines("a", "b") as engines:
        path = tmp_path / "publishers.yaml"
        path.write_text(
            json.dumps([{"name": e.name, "model": MODEL, "http_url": e.url, "endpoint": "tcp://h:1"} for e in engines])
        )
        process = await asyncio.create_subprocess_exec(
            *(ROUTER, "--publishers", str(path), "--policy", "round_robin", "--host", "127.0.0.1", "--port", str(port)),
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert b"router_listens" in await asyncio.wait_for(process.stderr.readline(), 30)
            async with aiohttp.ClientSession() as session:
                url = f"http://127.0.0.1:{port}"
                served = [(await ask(session, url))[1]["x-kvsync-endpoint"] for _ in range(4)]
            assert served == ["a", "b", "a", "b"]
        finally:
            process.terminate()
            assert await asyncio.wait_for(process.wait(), 30) == 0
