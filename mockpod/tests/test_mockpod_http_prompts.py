"""Which prompt the mock makes of a request: the same for `/tokenize` and a chat, and truncated as vLLM truncates it."""

import pytest
from mockpod_helpers import start_pod

TEXT = "The quick brown fox jumps over the lazy dog and runs back to where it came from. " * 3
MESSAGES = [{"role": "user", "content": TEXT}, {"role": "assistant", "content": "So"}]
TOOLS = [{"type": "function", "function": {"name": "f"}}]


@pytest.fixture
async def pod():
    async with start_pod(enable_prompt_tokens_details=True) as running:
        yield running


async def prompt_of(pod, path, body):
    status, answer = await pod.post(path, {"max_tokens": 1, "return_token_ids": True, **body})
    assert status == 200, answer
    return answer.get("prompt_token_ids") or answer["choices"][0]["prompt_token_ids"]


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": TOOLS},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"chat_template_kwargs": {"documents": [{"text": "d"}], "reasoning_effort": "low"}},
        {"add_generation_prompt": False},
        {"add_generation_prompt": False, "continue_final_message": True},
    ],
)
async def test_a_chat_has_the_tokens_that_tokenize_says(pod, fields):
    plain = await prompt_of(pod, "/v1/chat/completions", {"messages": MESSAGES})
    prompt = await prompt_of(pod, "/v1/chat/completions", {"messages": MESSAGES, **fields})
    _, answer = await pod.post("/tokenize", {"messages": MESSAGES, **fields})
    assert prompt == answer["tokens"]
    assert prompt != plain


async def test_fields_of_a_chat_are_arguments_of_the_template(pod):
    fields = {"documents": [{"text": "d"}], "reasoning_effort": "none"}
    prompt = await prompt_of(pod, "/v1/chat/completions", {"messages": MESSAGES, **fields})
    arguments = {**fields, "enable_thinking": False}
    _, answer = await pod.post("/tokenize", {"messages": MESSAGES, "chat_template_kwargs": arguments})
    assert prompt == answer["tokens"]


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
async def test_a_prompt_is_truncated(pod, path):
    body = {"prompt": TEXT} if path == "/v1/completions" else {"messages": MESSAGES}
    whole = await prompt_of(pod, path, body)
    assert await prompt_of(pod, path, {**body, "truncate_prompt_tokens": 20}) == whole[-20:]
    assert await prompt_of(pod, path, {**body, "truncate_prompt_tokens": 20, "truncation_side": "right"}) == whole[:20]
    assert await prompt_of(pod, path, {**body, "truncate_prompt_tokens": -1}) == whole
    status, _ = await pod.post(path, {**body, "truncate_prompt_tokens": 2**40})
    assert status == 400


@pytest.mark.parametrize(
    ("path", "fields", "hits"),
    [
        ("/v1/completions", {}, True),
        ("/v1/completions", {"prompt_logprobs": 0}, False),
        ("/v1/completions", {"echo": True}, True),
        ("/v1/completions", {"echo": True, "logprobs": 0}, False),
        ("/v1/chat/completions", {"prompt_logprobs": 1}, False),
        ("/v1/chat/completions", {"echo": True}, False),
        ("/v1/chat/completions", {"logprobs": True}, True),
    ],
)
async def test_log_probabilities_of_the_prompt_skip_the_cache(pod, path, fields, hits):
    body = {"prompt": TEXT} if path == "/v1/completions" else {"messages": MESSAGES}
    for _ in range(2):
        _, answer = await pod.post(path, {**body, "max_tokens": 1, **fields})
    assert (answer["usage"]["prompt_tokens_details"]["cached_tokens"] > 0) is hits


async def test_a_template_of_the_request_is_refused(pod):
    for path in ("/v1/chat/completions", "/tokenize"):
        status, answer = await pod.post(path, {"messages": MESSAGES, "chat_template": "{{ x }}"})
        assert (status, answer["error"]["param"]) == (400, "chat_template")
