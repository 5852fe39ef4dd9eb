"""What model names mean, and how the router asks engines with an API key for their models."""

import json
from types import SimpleNamespace

import aiohttp
import pytest
from router_helpers import MODEL, FakeIndex, ask, running_engines, running_router

from kvsync_router.decisions.models import meaning_of
from kvsync_router.errors import ModelsUnreadableError
from kvsync_router.sources.models import MAX_LIST_BYTES, models_in


def listing(base=MODEL, **models):
    return SimpleNamespace(base_model=base, models=models)


def test_the_model_of_a_publisher_is_a_base_model_whatever_an_engine_says():
    hostile = listing(**{MODEL: "elsewhere"})
    assert meaning_of(MODEL, [hostile, listing(**{MODEL: None})]) == (MODEL, None)
    assert meaning_of(MODEL, [hostile]) == (MODEL, None)


@pytest.mark.parametrize(
    ("parents", "adapter"),
    [((None, None, "x"), False), ((MODEL, "x", None), True), ((None,), False), (("x",), True), ((None, "x"), True)],
)
def test_another_name_means_what_most_endpoints_say(parents, adapter):
    endpoints = [listing(name=parent) for parent in parents]
    assert meaning_of("name", endpoints) == (MODEL, "name" if adapter else None)


def test_the_base_of_an_adapter_is_what_its_publisher_announces():
    assert meaning_of("ad", [listing("base", ad="elsewhere")]) == ("base", "ad")
    assert meaning_of("nobody", [listing("base")]) == ("nobody", None)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"data": [1]}',
        b'{"data": [{"id": 1}]}',
        b"\xff",
        b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b" " * (MAX_LIST_BYTES + 1),
    ],
    ids=["cut", "list", "number", "no name", "no text", "deep", "long"],
)
def test_a_list_of_models_that_cannot_be_read(body):
    with pytest.raises(ModelsUnreadableError):
        models_in(body)


def asked_models(router):
    return {name: router.table.get(name).models for name in ("a", "b")}


async def test_one_engine_with_an_odd_list_changes_nothing_for_the_others():
    async with running_engines("a", "b") as engines:
        engines[0].models = json.dumps({"data": [{"id": MODEL, "parent": "elsewhere"}]}).encode()
        questions = []

        def matches(question):
            questions.append((question.model, question.lora))
            return {"b": 4}

        async with running_router(engines, matches) as (_, url), aiohttp.ClientSession() as session:
            assert (await ask(session, url))[1]["x-kvsync-endpoint"] == "b"
            engines[0].models = b'{"data": ' + b"[" * 100_000
            assert (await ask(session, url))[1]["x-kvsync-endpoint"] == "b"
        assert questions == [(MODEL, None)] * 2


async def test_an_alias_is_matched_like_the_first_name():
    async with running_engines("a", "b") as engines:
        for engine in engines:
            engine.aliases = ["alias"]
        async with running_router(engines, {"b": 4}) as (_, url), aiohttp.ClientSession() as session:
            status, headers, _ = await ask(session, url, model="alias")
            assert (status, headers["x-kvsync-endpoint"], headers["x-kvsync-matched-tokens"]) == (200, "b", "4")


async def test_names_that_only_a_client_may_list_are_reached_with_the_key_of_the_client():
    async with running_engines("a") as (engine,):
        engine.api_key, engine.aliases = "k", ["alias"]
        async with running_router([engine]) as (_, url), aiohttp.ClientSession() as session:
            assert (await ask(session, url, model="alias"))[0] == 404
            assert (await ask(session, url, model="alias", headers={"authorization": "Bearer no"}))[0] == 404
            key = {"authorization": "Bearer k"}
            assert (await ask(session, url, model="alias", headers=key))[0] == 200
            assert (await ask(session, url, model="lora-a", headers=key))[0] == 200
            assert engine.seen[-1].headers["authorization"] == "Bearer k"


@pytest.mark.parametrize("own", ["flag", "publisher"])
async def test_the_router_asks_with_its_own_key_and_never_sends_it_for_a_client(own):
    async with running_engines("a") as (engine,):
        engine.api_key, engine.aliases = "k", ["alias"]
        index = FakeIndex([engine])
        index.keys = {"a": "k"} if own == "publisher" else {}
        settings = {"engine_api_key": "k"} if own == "flag" else {}
        async with (
            running_router([engine], index=index, **settings) as (_, url),
            aiohttp.ClientSession() as session,
        ):
            assert (await ask(session, url, model="alias"))[0] == 200
            assert "authorization" not in engine.seen[-1].headers


async def test_models_without_a_key_are_those_that_the_publishers_name():
    async with running_engines("a", "b") as engines:
        for engine in engines:
            engine.api_key = "k"
        async with running_router(engines) as (_, url), aiohttp.ClientSession() as session:
            async with session.get(f"{url}/v1/models") as response:
                assert (response.status, [each["id"] for each in (await response.json())["data"]]) == (200, [MODEL])
            async with session.get(f"{url}/v1/models", headers={"authorization": "Bearer k"}) as response:
                names = [each["id"] for each in (await response.json())["data"]]
                assert names == [MODEL, "lora-a", "lora-b"]
