"""Requests that ask an engine to announce a prompt again which the index does not know."""

import json

import pytest

from kvsync_router.decisions.reports import MOST, ReportWishes, with_argument
from kvsync_router.decisions.requests import parse_request

TOKENS = list(range(100, 200))


def body(prompt=TOKENS, **fields):
    return json.dumps({"model": "m", "prompt": prompt, **fields}).encode()


def wishing(sent, publisher="a"):
    wishes = ReportWishes()
    wishes.underestimated(publisher, parse_request(sent))
    return wishes


def argument(sent):
    return json.loads(sent).get("vllm_xargs")


def test_the_next_request_with_the_same_beginning_carries_the_argument_once():
    wishes = wishing(body())
    wishes.grant("a")
    again = body([*TOKENS, 7, 8])
    changed = wishes.body_for("a", parse_request(again), again)
    assert argument(changed) == {"kv_cache_report_mode": "full"}
    assert {**json.loads(changed), "vllm_xargs": None} == {**json.loads(again), "vllm_xargs": None}
    assert wishes.body_for("a", parse_request(again), again) is again
    assert wishes.added == 1


@pytest.mark.parametrize(
    ("publisher", "other"),
    [
        ("b", body()),
        ("a", body([1, *TOKENS])),
        ("a", body(cache_salt="s")),
        ("a", json.dumps({"model": "n", "prompt": TOKENS}).encode()),
        ("a", body("text")),
    ],
)
def test_other_requests_are_left_alone(publisher, other):
    wishes = wishing(body())
    wishes.grant("a")
    assert wishes.body_for(publisher, parse_request(other), other) is other


def test_nothing_is_asked_that_the_index_does_not_want():
    wishes = wishing(body())
    assert wishes.body_for("a", parse_request(body()), body()) == body()
    wishes.grant("b")  # no prompt of this one is underestimated
    assert wishes.body_for("b", parse_request(body()), body()) == body()


def test_a_chat_is_known_by_its_first_message():
    def chat(*texts):
        messages = [{"role": "system" if not at else "user", "content": text} for at, text in enumerate(texts)]
        return json.dumps({"model": "m", "messages": messages}).encode()

    wishes = ReportWishes()
    wishes.underestimated("a", parse_request(chat("be kind", "hello")))
    wishes.grant("a")
    other, same = chat("be brief", "hello"), chat("be kind", "good bye")
    assert wishes.body_for("a", parse_request(other), other) is other
    assert argument(wishes.body_for("a", parse_request(same), same)) == {"kv_cache_report_mode": "full"}


def test_the_arguments_of_the_client_are_kept():
    assert argument(with_argument(body(vllm_xargs={"x": 1}))) == {"x": 1, "kv_cache_report_mode": "full"}
    for sent in (body(vllm_xargs={"kv_cache_report_mode": "off"}), body(vllm_xargs=[1]), b"[" * 100_000):
        assert with_argument(sent) is sent


def test_the_prompts_that_are_remembered_are_bounded():
    wishes = ReportWishes()
    for number in range(2 * MOST):
        wishes.underestimated("a", parse_request(body([number])))
    assert len(wishes._prompts) == MOST
