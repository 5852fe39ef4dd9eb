"""What the router reads of a request, and the question to the index that it makes of it."""

import json

import pytest

from kvsync_router.decisions.requests import (
    DEFAULT_OUTPUT_TOKENS,
    MAX_OUTPUT_TOKENS,
    match_request,
    output_wait_tokens,
    parse_request,
)
from kvsync_router.errors import RequestRefusedError

CHAT = {"messages": [{"role": "user", "content": "hi"}]}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def read(**fields):
    return parse_request(json.dumps(fields).encode())


def asked(**fields):
    """The question of a request, as the fields that are set."""
    question = match_request(read(**fields), "m", None)
    names = question.__struct_fields__
    return {name: getattr(question, name) for name in names if getattr(question, name) is not None}


@pytest.mark.parametrize("body", [b'{"prompt": [1, 2]}', b'{"prompt": "a"}', b'{"prompt": [1], "messages": null}'])
def test_a_request_without_messages_has_none(body):
    assert parse_request(body).prompt.messages is None


def test_a_question_holds_what_decides_the_tokens_of_a_chat():
    fields = {
        "tools": [{"type": "function"}],
        "documents": [{"text": "d"}],
        "chat_template": "{{ x }}",
        "chat_template_kwargs": {"enable_thinking": False},
        "reasoning_effort": "low",
        "add_generation_prompt": False,
        "continue_final_message": True,
        "add_special_tokens": True,
        "mm_processor_kwargs": {"a": 1},
    }
    assert asked(**CHAT, **fields, temperature=0, cache_salt="s") == {"model": "m", "cache_salt": "s", **CHAT, **fields}


def test_a_question_about_text_holds_its_special_tokens_and_its_truncation():
    more = {"add_special_tokens": False, "truncate_prompt_tokens": 5, "truncation_side": "right", "max_tokens": 3}
    assert asked(prompt="abc", tools=[1], **more) == {"model": "m", "prompt": "abc", **more}
    assert asked(prompt=[1, 2], add_special_tokens=True, max_tokens=3) == {"model": "m", "token_ids": [1, 2]}


def test_of_several_prompts_the_first_is_asked_about():
    assert asked(prompt=[[1, 2], [3]]) == {"model": "m", "token_ids": [1, 2]}
    assert asked(prompt=["a", "b"]) == {"model": "m", "prompt": "a"}
    assert not read(prompt=["a", "b"]).single


def test_the_path_decides_which_prompt_counts():
    body = json.dumps({**CHAT, "prompt": "abc"}).encode()
    assert match_request(parse_request(body, api="chat"), "m", None).messages == CHAT["messages"]
    assert match_request(parse_request(body, api="completion"), "m", None).prompt == "abc"


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "what is this?"}, PICTURE]}]},
        {"messages": [{"role": "user", "content": [{"image_url": {"url": "x"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x"}}]}]},
        {"prompt_embeds": "AAAA"},
        {"prompt": "a", "prompt_embeds": ["AAAA"]},
        {**CHAT, "kv_transfer_params": {"do_remote_prefill": True}},
    ],
)
def test_a_prompt_that_cannot_be_known_is_not_asked_about(fields):
    request = read(**fields)
    assert request.unknown
    assert match_request(request, "m", None) is None


@pytest.mark.parametrize(
    ("fields", "skips"),
    [
        ({"prompt": "a", "prompt_logprobs": 0}, True),
        ({"prompt": "a", "echo": True, "logprobs": 0}, True),
        ({"prompt": "a", "echo": True}, False),
        ({"prompt": "a", "logprobs": 3}, False),
        ({**CHAT, "prompt_logprobs": 1}, True),
        ({**CHAT, "echo": True}, True),
        ({**CHAT, "logprobs": True, "top_logprobs": 2}, False),
    ],
)
def test_requests_for_log_probabilities_of_the_prompt_skip_the_cache(fields, skips):
    request = read(**fields)
    assert request.skips_cache is skips
    assert (match_request(request, "m", None) is None) is skips
    assert request.unknown is None


@pytest.mark.parametrize("limit", [2**31 - 1, 10**30])
def test_a_limit_beyond_every_answer_is_no_prediction(limit):
    assert read(prompt="a", max_tokens=limit).output_tokens == MAX_OUTPUT_TOKENS
    assert read(**CHAT, max_completion_tokens=limit).output_tokens == MAX_OUTPUT_TOKENS


def test_the_first_byte_of_an_answer_that_is_not_streamed_waits_for_its_output():
    assert output_wait_tokens(read(prompt="a", max_tokens=7)) == 7
    assert output_wait_tokens(read(prompt="a")) == DEFAULT_OUTPUT_TOKENS
    assert output_wait_tokens(read(**CHAT)) == MAX_OUTPUT_TOKENS
    assert output_wait_tokens(read(**CHAT, stream=True)) == 0


@pytest.mark.parametrize("field", ["messages", "tools", "unknown_to_us"])
def test_deep_json_is_refused_in_one_line(field):
    body = b'{"model": "m", "' + field.encode() + b'": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(RequestRefusedError, match=r"^the request body is nested too deeply$") as caught:
        parse_request(body)
    assert caught.value.status == 400
