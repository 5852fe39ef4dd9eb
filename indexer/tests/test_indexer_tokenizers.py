"""Tokenizers in the index's own process: what they encode, which one a model has, and how slow ones are left alone."""

import asyncio
import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from tokenizer_helpers import BODIES, TEMPLATES, build_folder

from kvsync_indexer.errors import ConfigError, RequestError, TokenizeError, UnknownPromptError
from kvsync_indexer.publishers import PublisherSpec
from kvsync_indexer.publishers_file import parse_publishers
from kvsync_indexer.tokenizer_choice import REMOTE, TokenizerChoice, parse_choice, parse_flags
from kvsync_indexer.tokenizing import Tokenizers
from kvsync_indexer.tokenizing.huggingface import HuggingFaceText
from kvsync_indexer.tokenizing.local import MOST_BYTES, MOST_WAITING, THREADS, LocalTokenizer
from kvsync_indexer.tokenizing.templates import ChatTemplate
from kvsync_indexer.tokenizing.turns import FIRST_PAUSE_S

VECTORS = json.loads((Path(__file__).parent / "vectors" / "chats.json").read_text())
USER = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """An encoder per template."""
    root = tmp_path_factory.mktemp("tokenizers")
    return {name: HuggingFaceText(build_folder(root / name, **config)) for name, config in TEMPLATES.items()}


# -- the same tokens as the engine ---------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS)
def test_tokens_are_those_of_vllm(encoders, vector):
    template, body = vector.split("/")
    if VECTORS[vector] is None:
        with pytest.raises(RequestError):
            encoders[template].encode(BODIES[body])
    else:
        assert encoders[template].encode(BODIES[body]) == VECTORS[vector]


def test_every_template_and_body_has_a_vector():
    assert set(VECTORS) == {f"{template}/{body}" for template in TEMPLATES for body in BODIES}


def test_files_beside_the_settings_go_first(tmp_path):
    folder = build_folder(tmp_path, chat_template="from settings")
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "from legacy"}))
    plain = HuggingFaceText(folder).encode({"messages": USER})
    (folder / "chat_template.jinja").write_text("of its own")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("with tools")
    encoder = HuggingFaceText(folder / "tokenizer.json")
    expected = {text: HuggingFaceText(folder).encode({"prompt": text, "add_special_tokens": False})
                for text in ("from settings", "of its own", "with tools")}  # fmt: skip
    assert plain == expected["from settings"]
    assert encoder.encode({"messages": USER}) == expected["of its own"]
    assert encoder.encode({"messages": USER, "tools": BODIES["tools"]["tools"]}) == expected["with tools"]


def test_special_tokens_of_the_older_file_are_known(tmp_path):
    folder = build_folder(tmp_path, chat_template="{{ bos_token }}{{ pad_token }}")
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": "</s>", "bos_token": "not this"}))
    assert HuggingFaceText(folder).encode({"messages": USER}) == [1, 2]


def test_added_tokens_of_the_settings_are_known(tmp_path):
    token = {
        "content": "<new>",
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "single_word": False,
        "special": True,
    }
    folder = build_folder(tmp_path, added_tokens_decoder={"263": token})
    assert HuggingFaceText(folder).encode({"prompt": "<new>", "add_special_tokens": False}) == [263]


def test_time_is_given_to_a_template():
    template = ChatTemplate("{{ strftime_now('%d %b %Y') }}", lambda: datetime(2026, 1, 2, tzinfo=UTC))
    assert template.render(USER, {}) == "02 Jan 2026"


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ raise_exception('no') }}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{{ 1 / 0 }}",
        "{{ nothing.at.all }}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(source):
    with pytest.raises(RequestError, match="the chat template: "):
        ChatTemplate(source).render(USER, {})


def test_an_unknown_tag_is_an_error_of_the_folder(tmp_path):
    with pytest.raises(TokenizeError, match=r"a chat template cannot be used: .*nonsense"):
        HuggingFaceText(build_folder(tmp_path, chat_template="{% nonsense %}"))


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"chat_template": "x"}, "a chat template in a request"),
        ({"chat_template_kwargs": {"max_length": 3, "truncation": True}}, "arguments for the tokenizer"),
    ],
)
def test_what_only_the_engine_knows_is_unknown(encoders, more, why):
    with pytest.raises(UnknownPromptError, match=why):
        encoders["chatml"].encode({"messages": USER, **more})


def test_chats_of_a_harmony_model_are_unknown_and_its_texts_are_not(tmp_path):
    folder = build_folder(tmp_path, chat_template="x")
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt_oss"}))
    encoder = HuggingFaceText(folder)
    assert encoder.encode({"prompt": ""}) == [1]
    with pytest.raises(UnknownPromptError, match="Harmony"):
        encoder.encode({"messages": USER})


@pytest.mark.parametrize(
    "body",
    [
        {"messages": []},
        {"messages": [3]},
        {"messages": [{"role": "user", "content": 3}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        {"messages": USER, "tools": [{"type": "web_search"}]},
        {"messages": [{"role": "assistant", "tool_calls": [3]}]},
        {"messages": USER, "continue_final_message": True},
        {"messages": USER, "chat_template_kwargs": {"tokenize": False}},
        {"messages": USER, "chat_template_kwargs": [1]},
        {"prompt": "\ud800"},
    ],
)
def test_what_an_engine_refuses_is_refused(encoders, body):
    with pytest.raises(RequestError) as caught:
        encoders["chatml"].encode(body)
    assert caught.value.status == 422


# -- which one -----------------------------------------------------------------------------------------------------


def test_choices_are_parsed_and_written():
    for text in ("remote", "mock", "hf:/models/a=b"):
        assert str(parse_choice(text)) == text
    for text in ("hf:", "hf", "gpt2", "Remote"):
        with pytest.raises(ValueError, match="must be remote, mock or hf:PATH"):
            parse_choice(text)


def test_flags_have_a_default_and_models():
    default, models = parse_flags(["mock", "a/b=hf:/x=1", "c=remote"])
    assert (default, models) == (
        TokenizerChoice("mock"), {"a/b": TokenizerChoice("hf", Path("/x=1")), "c": REMOTE},
    )  # fmt: skip
    assert parse_flags([]) == (REMOTE, {})
    for flags in (["x"], ["mock", "remote"], ["a=mock", "a=remote"], ["=mock"]):
        with pytest.raises(ConfigError, match="--tokenizer"):
            parse_flags(flags)


def test_a_publishers_file_names_tokenizers_and_formats():
    rows = """
- {name: a, model: m, endpoint: "tcp://h:1", tokenizer: "hf:/m", exclude_tools_when_tool_choice_none: true}
- {name: b, model: openai/gpt-oss-20b, endpoint: "tcp://h:1"}
- {name: c, model: gpt-oss-like, endpoint: "tcp://h:1", chat_format: template}
"""
    first, second, third = parse_publishers(rows, "f")
    assert (first.tokenizer, first.excludes_tools) == (TokenizerChoice("hf", Path("/m")), True)
    assert [each.chat_format for each in (first, second, third)] == ["template", "harmony", "template"]
    with pytest.raises(ConfigError, match="entry 2: model 'm' has two different tokenizers"):
        parse_publishers(
            '[{name: a, model: m, endpoint: "tcp://h:1", tokenizer: mock},'
            ' {name: b, model: m, endpoint: "tcp://h:1", tokenizer: remote}]', "f",
        )  # fmt: skip
    with pytest.raises(ConfigError, match="tokenizer = 'x': must be remote, mock or hf:PATH"):
        parse_publishers('[{name: a, model: m, endpoint: "tcp://h:1", tokenizer: x}]', "f")


def link(choice=None):
    spec = PublisherSpec(name="p", model="m", endpoint="tcp://h:1", tokenizer=choice)
    return SimpleNamespace(spec=spec, machine=SimpleNamespace(trusted=True))


async def test_the_choice_of_the_publishers_goes_before_the_flags(tmp_path):
    folder = TokenizerChoice("hf", build_folder(tmp_path))
    made = Tokenizers(TokenizerChoice("mock"), {"n": folder}, clock=lambda: 0.0)
    assert made.choice("m", [link(), link(folder)]) == folder
    assert made.choice("n", []) == folder
    assert made.choice("m", [link()]) == TokenizerChoice("mock")
    with pytest.raises(TokenizeError, match="is being loaded"):
        await made.tokens("m", {"prompt": ""}, [link(TokenizerChoice("hf", tmp_path / "tokenizer.json"))])
    assert (await made.tokens("n", {"prompt": ""}, [])).tokens == [1]
    await made.close()


async def test_a_tokenizer_of_a_publisher_is_loaded_at_the_first_question_and_again_later(tmp_path):
    now = [0.0]
    made = Tokenizers(clock=lambda: now[0])
    links = [link(TokenizerChoice("hf", tmp_path / "later"))]

    async def loaded():
        with pytest.raises(TokenizeError) as caught:
            await made.tokens("m", {"prompt": ""}, links)
        await asyncio.gather(*(each.task for each in made._loading.values() if each.task))
        return str(caught.value)

    assert "is being loaded" in await loaded()
    assert "No such file" in await loaded()
    build_folder(tmp_path / "later")
    assert "No such file" in await loaded()  # a pause
    now[0] = 31.0
    assert "is being loaded" in await loaded()
    assert (await made.tokens("m", {"prompt": ""}, links)).tokens == [1]
    await made.close()


@pytest.mark.parametrize("text", ["hf:/nowhere", "m=hf:/nowhere"])
def test_a_flag_that_cannot_be_loaded_ends_the_start(text):
    with pytest.raises(ConfigError, match="--tokenizer hf:/nowhere: /nowhere: No such file or directory"):
        Tokenizers(*parse_flags([text]), clock=lambda: 0.0)


# -- time ----------------------------------------------------------------------------------------------------------


class Encoder:
    """Returns one token per character, and waits for `go` with texts that begin with "slow"."""

    def __init__(self):
        self.go = threading.Event()
        self.begun = 0

    def encode(self, body):
        self.begun += 1
        if body["prompt"] == "fail":
            raise ValueError("defect")
        if body["prompt"].startswith("slow"):
            self.go.wait()
        return [1] * len(body["prompt"])


@pytest.fixture
def local():
    """A tokenizer, its encoder and its clock."""
    now = [0.0]
    encoder = Encoder()
    made = LocalTokenizer(encoder, lambda: now[0])
    yield made, encoder, now
    encoder.go.set()
    made.close()


async def test_a_slow_text_costs_a_tenth_of_a_second_and_then_nothing(local):
    made, encoder, now = local
    with pytest.raises(TokenizeError, match="not done in time"):
        await asyncio.wait_for(made.tokens({"prompt": "slow"}, 4), 5)
    begun = encoder.begun
    with pytest.raises(TokenizeError, match="slow a moment ago"):
        await made.tokens({"prompt": "ab"}, 2)
    assert encoder.begun == begun
    now[0] = FIRST_PAUSE_S
    assert (await made.tokens({"prompt": "ab"}, 2)).tokens == [1, 1]  # by the other thread
    assert (await made.tokens({"prompt": "ab"}, 2)).tokens == [1, 1]


async def test_texts_that_wait_for_busy_threads_do_not_make_the_tokenizer_slow(local):
    made, _, now = local
    for _ in range(THREADS):
        now[0] += 100.0
        with pytest.raises(TokenizeError, match="not done in time"):
            await made.tokens({"prompt": "slow"}, 4)
    now[0] += 100.0
    for _ in range(2):
        now[0] += 100.0
        with pytest.raises(TokenizeError, match="not done in time"):
            await made.tokens({"prompt": "ab"}, 2)


async def test_a_client_that_gives_up_leaves_nothing_behind(local):
    made, encoder, now = local
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(made.tokens({"prompt": "slow"}, 4), 0.01)
    encoder.go.set()
    now[0] = 100.0
    assert (await made.tokens({"prompt": "ab"}, 2)).tokens == [1, 1]
    assert made._waiting == 0


async def test_what_waits_and_how_long_a_text_is_are_bounded(local):
    made, _, _ = local
    with pytest.raises(TokenizeError, match="at most 16777216 are tokenized here"):
        await made.tokens({"prompt": ""}, MOST_BYTES + 1)
    asked = [asyncio.create_task(made.tokens({"prompt": "slow"}, 4)) for _ in range(MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(TokenizeError, match="64 texts wait"):
        await made.tokens({"prompt": "a"}, 1)
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)


async def test_a_defect_of_an_encoder_ends_no_thread(local):
    made, _, _ = local
    for _ in range(2 * THREADS):
        with pytest.raises(TokenizeError, match="the tokenizer failed: ValueError: defect"):
            await made.tokens({"prompt": "fail"}, 4)
    assert (await made.tokens({"prompt": "ab"}, 2)).tokens == [1, 1]
