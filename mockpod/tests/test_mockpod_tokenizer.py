"""The tokenizer reproduces every text, and answers keep their tokens."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvsync_events import TextError
from kvsync_mockpod.text import EOS, MAX_TOKEN_ID, VOCAB_SIZE, TextModel, Tokenizer, render_chat

TOKENIZER = Tokenizer()
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=200)
english = st.text("abc XYZ 019 .,!?\n\t<|>_t", max_size=100)


@given(texts | english)
@settings(max_examples=300, deadline=None)
def test_text_round_trips(text):
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == text
    assert all(0 <= token < VOCAB_SIZE or token <= MAX_TOKEN_ID for token in ids)
    assert TOKENIZER.encode(TOKENIZER.decode(ids)) == ids


@given(st.lists(st.integers(16, 65_535), max_size=20))
@settings(max_examples=100, deadline=None)
def test_ids_without_text_of_their_own_round_trip_as_markers(ids):
    assert TOKENIZER.encode(TOKENIZER.decode(ids)) == ids


@given(st.lists(st.integers(0, MAX_TOKEN_ID), max_size=20))
@settings(max_examples=200, deadline=None)
def test_any_id_decodes_to_text_that_round_trips(ids):
    text = TOKENIZER.decode(ids)
    text.encode("utf-8")
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(english, english)
@settings(max_examples=200, deadline=None)
def test_a_longer_text_keeps_all_but_the_last_tokens_of_its_prefix(start, more):
    before, after = TOKENIZER.encode(start), TOKENIZER.encode(start + more)
    shared = sum(1 for _ in takewhile_equal(before, after))
    assert len(TOKENIZER.decode(before[shared:])) <= 24, "only the piece at the boundary may change"


def takewhile_equal(one, two):
    for a, b in zip(one, two, strict=False):
        if a != b:
            return
        yield a


def test_ids_are_fixed_for_ever():
    assert TOKENIZER.encode("Hello world") == [
        0x10000000 + (72 << 21 | 101 << 14 | 108 << 7 | 108),
        65_536 + 111,
        0x10000000 + (32 << 21 | 119 << 14 | 111 << 7 | 114),
        0x200000 + (108 << 7 | 100),
    ]
    assert TOKENIZER.encode("é😀<|eos|><|t77|>") == [65_536 + 0xE9, 65_536 + 0x1F600, EOS, 77]


def test_a_lone_surrogate_is_refused():
    with pytest.raises(TextError, match="U\\+D800"):
        TOKENIZER.encode("a\ud800")


@pytest.mark.parametrize("opening", [True, False])
def test_answers_keep_their_tokens_when_they_come_back(opening):
    model = TextModel(TOKENIZER, 7, 128)
    for index in range(50):
        answer = model.answer([1, 2, 3], None, index, opening=opening)
        ids = [model.token(answer, position) for position in range(min(answer.length, 64))]
        text = TOKENIZER.decode(ids)
        assert TOKENIZER.encode(text) == ids
        assert text.startswith(" ") is not opening
        assert model.token(answer, answer.length) == EOS


def test_answers_are_decided_by_seed_prompt_and_index():
    model, same, other = TextModel(TOKENIZER, 7, 128), TextModel(Tokenizer(), 7, 128), TextModel(TOKENIZER, 8, 128)

    def words(of, prompt, seed, index):
        answer = of.answer(prompt, seed, index, opening=False)
        return [of.token(answer, position) for position in range(40)]

    base = words(model, [1, 2], None, 0)
    assert words(same, [1, 2], None, 0) == base
    assert all(
        words(*changed) != base
        for changed in (
            (other, [1, 2], None, 0),
            (model, [1, 3], None, 0),
            (model, [1, 2], 5, 0),
            (model, [1, 2], None, 1),
        )
    )


def test_a_conversation_starts_with_the_tokens_of_the_shorter_one():
    model = TextModel(TOKENIZER, 0, 64)
    first = render_chat(TOKENIZER, [{"role": "user", "content": "What is a block?"}]).token_ids
    answer = model.answer(first, None, 0, opening=True)
    generated = [model.token(answer, position) for position in range(20)]
    longer = render_chat(
        TOKENIZER,
        [
            {"role": "user", "content": "What is a block?"},
            {"role": "assistant", "content": TOKENIZER.decode(generated)},
            {"role": "user", "content": "And then?"},
        ],
    ).token_ids
    assert longer[: len(first) + 20] == first + generated


def test_media_parts_hold_their_place():
    prompt = render_chat(
        TOKENIZER,
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": {"url": "data:,x"}, "uuid": "pic-1"},
                ],
            }
        ],
    )
    (part,) = prompt.media
    assert part.identity == "pic-1"
    assert len(set(prompt.token_ids[part.offset : part.offset + part.length])) == 1
