"""The index finds the prompt that a running engine computed, whichever tokenizer it uses."""

import json

import pytest
from tokenizer_helpers import build_folder

from kvsync_testkit.waiting import wait_until

BLOCK = 4
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
CHAT = [{"role": "system", "content": "You answer in few words."}, {"role": "user", "content": "What is it?"}]
BODIES = {
    "text": {"prompt": "The capital of France is Paris, and so on."},
    "chat": {"messages": CHAT},
    "tools": {"messages": CHAT, "tools": TOOLS},
    "no_tools": {"messages": CHAT, "tools": TOOLS, "tool_choice": "none"},
    "arguments": {"messages": CHAT, "chat_template_kwargs": {"enable_thinking": False}},
    "effort": {"messages": CHAT, "reasoning_effort": "low", "documents": [{"text": "d"}]},
    "bare": {"messages": CHAT, "add_generation_prompt": False},
    "continued": {
        "messages": [*CHAT, {"role": "assistant", "content": "It is"}],
        "add_generation_prompt": False,
        "continue_final_message": True,
    },
    "truncated": {"messages": CHAT, "truncate_prompt_tokens": 21},
}


@pytest.fixture
def engine(mock_engine):
    """A mock engine with small blocks."""
    return mock_engine(block_size=BLOCK, max_model_len=1024)


@pytest.mark.parametrize("kind", ["mock", "remote"])
def test_a_prompt_is_found_as_the_engine_computed_it(engine, index, kind):
    running = index(engine, tokenizer=kind)
    for label, body in BODIES.items():
        path = "/v1/completions" if "prompt" in body else "/v1/chat/completions"
        answer = engine.ok("POST", path, {"model": engine.model, "max_tokens": 1, **body})
        full = answer["usage"]["prompt_tokens"] // BLOCK
        running.settled()
        found = running.ok("POST", "/v1/match", {"model": engine.model, **body})
        assert (label, found["query_blocks"], found["matches"][0]["matched_blocks"]) == (label, full, full)


def test_a_tokenizer_of_a_file_is_used_without_an_engine_to_ask(engine, index, tmp_path):
    folder = build_folder(tmp_path / "model", chat_template="{% for m in messages %}{{ m.content }}{% endfor %}")
    entry = {**engine.entry("engine-0"), "tokenizer": f"hf:{folder}", "http_url": None}
    running = index(entry, tokenizer=f"{engine.model}=mock")
    tokens = [1, *range(7, 15)]  # what the file makes of this text: a token per byte, and one before them
    engine.complete(tokens)
    running.settled()
    text = "".join(chr(33 + token - 7) for token in tokens[1:])

    def found(body):
        status, _, answer = running.ask("POST", "/v1/match", {"model": engine.model, **body})
        return json.loads(answer)["matches"][0]["matched_blocks"] if status == 200 else None

    wait_until("the file is loaded", lambda: found({"prompt": text}) == 2, deadline_s=30.0)
    assert found({"messages": [{"role": "user", "content": text}], "add_special_tokens": True}) == 2
    assert found({"messages": [{"role": "user", "content": text}]}) == 0


def test_chats_of_a_harmony_model_are_unknown_and_its_texts_are_not(mock_engine, index):
    engine = mock_engine(model="openai/gpt-oss-20b")
    running = index(engine, tokenizer="mock")
    answer = running.ok("POST", "/v1/match", {"model": engine.model, "messages": CHAT})
    assert (answer["unknown"], answer["matches"]) == (
        "the engine renders chats of this model with the Harmony encoding",
        [],
    )
    assert "unknown" not in running.ok("POST", "/v1/match", {"model": engine.model, "prompt": "a"})


def test_tools_are_left_out_for_an_engine_that_leaves_them_out(mock_engine, index):
    engine = mock_engine(block_size=BLOCK, max_model_len=1024)
    entry = {**engine.entry("engine-0"), "exclude_tools_when_tool_choice_none": True}
    running = index(entry, tokenizer="mock")
    engine.complete("a first prompt, which tells the index the size of a block")
    running.settled()
    blocks = {
        choice: running.ok("POST", "/v1/match", {"model": engine.model, "messages": CHAT, **fields})["query_blocks"]
        for choice, fields in {
            "none": {"tools": TOOLS, "tool_choice": "none"}, "auto": {"tools": TOOLS}, "bare": {},
        }.items()
    }  # fmt: skip
    assert blocks["none"] == blocks["bare"] < blocks["auto"]
