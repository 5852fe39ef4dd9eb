"""Text questions: what an engine's `/tokenize` is asked, which engine is asked, and how a slow one is left alone."""

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from aiohttp import web

from kvsync_indexer.api import MatchRequest
from kvsync_indexer.api.prompts import RequestBody, tokenize_body, truncated
from kvsync_indexer.errors import RequestError, TokenizeError, UnknownPromptError
from kvsync_indexer.publishers import PublisherSpec
from kvsync_indexer.service.contexts import MAX_DEPTH, context_of
from kvsync_indexer.service.match import Matcher
from kvsync_indexer.service.prompts import query_tokens
from kvsync_indexer.service.requests import decode_request
from kvsync_indexer.tokenizing.remote import RemoteTokenizer
from kvsync_indexer.tokenizing.turns import FIRST_PAUSE_S, EngineTurns

MODEL = "m"
BOS = 1


@dataclass
class Engine:
    """An engine that puts one special token before the characters of a text, unless it is told not to."""

    hangs: bool = False
    status: int = 200
    headers: dict = field(default_factory=dict)
    answer: bytes | None = None
    asked: list = field(default_factory=list)
    keys: list = field(default_factory=list)
    url: str = ""

    async def tokenize(self, request):
        body = await request.json()
        self.asked.append(body)
        self.keys.append(request.headers.get("authorization"))
        if self.hangs:
            await asyncio.Event().wait()
        tokens = [BOS] * body.get("add_special_tokens", True) + [ord(each) for each in body.get("prompt", "chat")]
        data = json.dumps({"tokens": tokens, "max_model_len": 8}).encode() if self.answer is None else self.answer
        return web.Response(body=data, status=self.status, headers=self.headers)


@contextlib.asynccontextmanager
async def serving(*engines):
    """Links to these engines."""
    async with contextlib.AsyncExitStack() as stack:
        for engine in engines:
            app = web.Application()
            app.router.add_post("/tokenize", engine.tokenize)
            runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            engine.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield [link(engine.url) for engine in engines]


def link(url, **more):
    spec = PublisherSpec(name=url, model=MODEL, endpoint="tcp://h:1", http_url=url, **more)
    return SimpleNamespace(spec=spec, machine=SimpleNamespace(trusted=True))


@contextlib.asynccontextmanager
async def tokenizer(api_key=None, clock=time.monotonic):
    made = RemoteTokenizer(api_key, clock)
    try:
        yield made
    finally:
        await made.close()


async def ask(made, links, text="ab"):
    return (await made.tokens(MODEL, {"prompt": text}, links)).tokens


# -- which engine is asked -----------------------------------------------------------------------------------------


def test_engines_take_turns():
    turns = EngineTurns()
    assert {turns.order(["a", "b"], 0.0)[0] for _ in range(2)} == {"a", "b"}


def test_a_slow_engine_is_left_alone_then_tried_once_and_longer_each_time():
    turns = EngineTurns()
    turns.slow("a", 0.0)
    assert turns.order(["a"], FIRST_PAUSE_S - 0.01) == []
    assert turns.order(["a"], FIRST_PAUSE_S) == ["a"]
    assert turns.order(["a"], FIRST_PAUSE_S) == []  # one question is under way
    turns.slow("a", FIRST_PAUSE_S + 0.1)
    assert turns.order(["a"], FIRST_PAUSE_S + 0.1 + 1.5 * FIRST_PAUSE_S) == []
    turns.answered("a")
    assert turns.order(["a"], FIRST_PAUSE_S + 0.2) == ["a"]


def test_engines_that_fail_together_are_left_alone_for_one_pause_only():
    turns = EngineTurns()
    for _ in range(5):
        turns.slow("a", 0.0)
    assert turns.order(["a"], FIRST_PAUSE_S) == ["a"]


async def test_another_engine_answers_for_one_that_hangs_which_is_then_left_alone():
    good, bad = Engine(), Engine(hangs=True)
    now = [0.0]
    async with serving(good, bad) as links, tokenizer(None, lambda: now[0]) as made:
        for _ in range(8):
            assert await ask(made, links) == [BOS, 97, 98]
        assert len(bad.asked) == 1
        now[0], bad.hangs = FIRST_PAUSE_S * 2, False
        for _ in range(4):
            await ask(made, links)
        assert len(bad.asked) > 1


async def test_with_no_engine_left_the_answer_comes_at_once():
    async with serving(Engine(hangs=True)) as links, tokenizer(None, lambda: 0.0) as made:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(made, links), 0.25)  # what a router does
        with pytest.raises(TokenizeError, match="slow or failed a moment ago"):
            await ask(made, links)


@pytest.mark.parametrize("status", [401, 429, 500, 503])
async def test_an_engine_that_fails_is_passed_over(status):
    bad = Engine(status=status)
    async with serving(Engine(), bad) as links, tokenizer(None, lambda: 0.0) as made:
        for _ in range(4):
            assert await ask(made, links) == [BOS, 97, 98]
        assert len(bad.asked) == 1


async def test_a_redirect_is_not_followed_and_nothing_of_it_is_shown():
    inside = Engine(answer=b'{"tokens": [7]}')
    async with serving(inside) as _:
        outside = Engine(status=307, headers={"location": f"{inside.url}/tokenize"}, answer=b"secret")
        async with serving(outside) as links, tokenizer() as made:
            with pytest.raises(TokenizeError) as caught:
                await ask(made, links)
    assert inside.asked == []
    assert "secret" not in str(caught.value)


async def test_a_refusal_shows_the_message_of_the_engine_and_nothing_else():
    message = json.dumps({"error": {"message": "not a\nmodel " + "x" * 5000}, "secret": "key"}).encode()
    async with serving(Engine(status=400, answer=message)) as links, tokenizer() as made:
        with pytest.raises(RequestError, match="refused the text: not a model x") as caught:
            await ask(made, links)
    assert "key" not in str(caught.value)
    assert len(str(caught.value)) < 300


async def test_deep_json_of_an_engine_is_a_failure_like_any_other():
    deep = Engine(answer=b'{"tokens": [1], "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    async with serving(deep) as links, tokenizer() as made:
        with pytest.raises(TokenizeError):
            await ask(made, links)


async def test_the_key_of_the_publisher_goes_before_the_key_of_the_service():
    engine = Engine()
    async with serving(engine) as links, tokenizer("common") as made:
        await ask(made, links)
        await ask(made, [link(engine.url, api_key="own")])
    assert engine.keys == ["Bearer common", "Bearer own"]


# -- what it is asked ----------------------------------------------------------------------------------------------


def test_documents_and_effort_reach_the_template_as_arguments():
    fields = RequestBody(
        documents=[{"text": "d"}], reasoning_effort="none", chat_template_kwargs={"a": 1}, tools=[2], chat_template="t"
    )
    assert tokenize_body(fields, None, ["message"]) == {
        "messages": ["message"],
        "tools": [2],
        "chat_template": "t",
        "chat_template_kwargs": {
            "a": 1,
            "documents": [{"text": "d"}],
            "reasoning_effort": "none",
            "enable_thinking": False,
        },
    }
    asked = tokenize_body(
        RequestBody(reasoning_effort="low", chat_template_kwargs={"enable_thinking": False}), None, []
    )
    assert asked["chat_template_kwargs"] == {"enable_thinking": False, "reasoning_effort": "low"}


def test_truncation_keeps_the_special_tokens_around_what_is_left():
    whole, bare = [1, 10, 11, 12, 13, 2], [10, 11, 12, 13]
    assert truncated(whole, 6, None, bare) == whole
    assert truncated(whole, 4, None, bare) == [1, 12, 13, 2]
    assert truncated(whole, 2, None, bare) == [1, 2]
    assert truncated(whole, 4, "left", bare) == [11, 12, 13, 2]
    assert truncated(whole, 4, "right", None) == [1, 10, 11, 12]
    assert truncated(whole, 3, None, None) == [12, 13, 2]
    assert truncated(whole, 4, None, [99, 11, 12, 13]) is None  # other tokens without its special tokens


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"prompt": "abcd", "truncate_prompt_tokens": 3}, [BOS, 99, 100]),
        ({"prompt": "abcd", "truncate_prompt_tokens": 3, "truncation_side": "left"}, [98, 99, 100]),
        ({"prompt": "abcd", "truncate_prompt_tokens": 3, "truncation_side": "right"}, [BOS, 97, 98]),
        ({"prompt": "abcd", "truncate_prompt_tokens": 3, "add_special_tokens": False}, [98, 99, 100]),
        ({"prompt": "abcd", "truncate_prompt_tokens": -1}, [BOS, 97, 98, 99, 100]),
        ({"prompt": "abcdefghij", "truncate_prompt_tokens": -1, "max_tokens": 5}, [BOS, *range(101, 107)]),
        ({"token_ids": [5, 6, 7], "truncate_prompt_tokens": 2}, [6, 7]),
        ({"token_ids": [5, 6, 7], "truncate_prompt_tokens": 2, "truncation_side": "right"}, [5, 6]),
    ],
)
async def test_a_prompt_is_truncated_as_the_engine_truncates_it(fields, tokens):
    async with serving(Engine()) as links, tokenizer() as made:
        assert await query_tokens(MatchRequest(MODEL, **fields), made, links) == tokens


async def test_a_prompt_of_tokens_that_is_cut_to_the_length_of_the_model_is_unknown():
    with pytest.raises(UnknownPromptError, match="where it truncates"):
        await query_tokens(MatchRequest(MODEL, token_ids=[5, 6], truncate_prompt_tokens=-1), None, [])


class Ingest:
    """An index without blocks."""

    def __init__(self):
        self.trusted = {MODEL: frozenset()}

    def links_of(self, _model):
        return ()


async def test_a_prompt_with_a_picture_is_unknown_and_has_no_rows():
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    answer = await Matcher(Ingest(), None).answer(MatchRequest(MODEL, messages=messages))
    assert answer.matches == []
    assert answer.unknown == "a content part of type 'image_url' has tokens that only the engine knows"


async def test_a_prompt_that_is_not_looked_up_is_not_tokenized():
    answer = await Matcher(Ingest(), None).answer(MatchRequest(MODEL, prompt="x", prompt_logprobs=1))
    assert (answer.unknown, answer.skips_cache) == (None, True)


# -- depth ---------------------------------------------------------------------------------------------------------


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


def test_the_depth_of_extra_keys_is_bounded():
    assert context_of(MatchRequest(MODEL, token_ids=[1], extra_keys=[nested(MAX_DEPTH)])).extra_keys is not None
    with pytest.raises(RequestError, match="nested deeper than 8 levels") as caught:
        context_of(MatchRequest(MODEL, token_ids=[1], extra_keys=[nested(MAX_DEPTH + 1)]))
    assert (caught.value.status, caught.value.field) == (422, "extra_keys")


@pytest.mark.parametrize("field", ["extra_keys", "messages", "tools"])
def test_deep_json_is_refused_in_one_line(field):
    body = b'{"model": "m", "' + field.encode() + b'": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(RequestError) as caught:
        decode_request(body, MatchRequest)
    assert caught.value.status == 422
    assert len(str(caught.value)) < 200
