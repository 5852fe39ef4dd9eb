"""One stream of the picker as a state machine: what is answered, when, and what is reported to the placement."""

import json

import pytest
from picker_helpers import (
    BUFFERED,
    DESTINATION,
    FULL_DUPLEX,
    NONE,
    PROMPT,
    destination,
    request_body,
    request_headers,
    request_trailers,
    response_body,
    response_headers,
    response_trailers,
    set_headers,
)

from kvsync_router.errors import PickerProtocolError, RequestRefusedError
from kvsync_router.picker.bodies import BodyBudget
from kvsync_router.picker.exchange import Exchange
from kvsync_router.picker.messages import PIECE_BYTES

ADDRESSES = "10.0.0.1:8000,10.0.0.2:8000"


class Recorded:
    """A placement that records what it is told."""

    destination = ADDRESSES

    def __init__(self, **headers):
        self.headers = headers
        self.told = []

    def began(self, *answer):
        self.told.append(answer)
        return {"x-kvsync-endpoint": "a"}

    def add(self, piece):
        self.told.append(piece)

    def completed(self):
        self.told.append("completed")

    def ended(self):
        self.told.append("ended")


def exchange(limit=1 << 20, budget=1 << 30):
    return Exchange(limit, BodyBudget(budget))


def streamed(answers, part="request_body"):
    """The body that comes back in these answers; only the last piece may say that it is the last."""
    pieces = [getattr(answer, part).response.body_mutation.streamed_response for answer in answers]
    assert all(len(piece.body) <= PIECE_BYTES for piece in pieces)
    assert not any(piece.end_of_stream for piece in pieces[:-1])
    return b"".join(piece.body for piece in pieces), pieces[-1].end_of_stream


def test_a_streamed_request_is_answered_when_its_body_is_complete():
    one = exchange()
    assert one.receive(request_headers(authorization="Bearer k")) == []
    assert one.receive(request_body(PROMPT[:10], end=False)) == []
    assert one.question is None
    assert one.receive(request_body(PROMPT[10:])) == []
    assert (one.question.body, one.question.headers["authorization"]) == (PROMPT, "Bearer k")
    head, *rest = one.placed(Recorded())
    assert destination(head) == ADDRESSES
    assert streamed(rest) == (PROMPT, True)


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES, 500_000])
def test_a_body_comes_back_in_pieces_that_the_protocol_permits(size):
    body = bytes(at % 251 for at in range(size))
    one = exchange()
    one.receive(request_headers())
    one.receive(request_body(body))
    _, *rest = one.placed(Recorded())
    assert streamed(rest) == (body, True)
    assert len(rest) == max(1, -(-size // PIECE_BYTES))


def test_trailers_end_a_streamed_body_and_are_answered_last():
    one = exchange()
    one.receive(request_headers())
    one.receive(request_body(PROMPT, end=False))
    one.receive(request_trailers())
    assert one.question.body == PROMPT
    head, *bodies, trailers = one.placed(Recorded())
    assert destination(head) == ADDRESSES
    assert streamed(bodies) == (PROMPT, False)
    assert trailers.HasField("request_trailers")


def test_trailers_without_a_body():
    one = exchange()
    one.receive(request_headers())
    one.receive(request_trailers())
    head, trailers = one.placed(Recorded())
    assert destination(head) == ADDRESSES
    assert trailers.HasField("request_trailers")


@pytest.mark.parametrize(("limit", "budget"), [(1000, 1 << 30), (1 << 30, 1000)])
def test_a_body_over_a_limit_is_placed_unread_and_passed_on(limit, budget):
    shared = BodyBudget(budget)
    one = Exchange(limit, shared)
    one.receive(request_headers())
    pieces = [bytes([number]) * 700 for number in range(5)]
    back = []
    for number, piece in enumerate(pieces):
        answers = one.receive(request_body(piece, end=number == 4))
        if one.question is not None:
            assert (number, one.question.body, one.question.body_bytes) == (1, None, 1400)
            head, *answers = one.placed(Recorded())
            assert destination(head) == ADDRESSES
            assert shared.held_bytes == 0
        back += answers
    assert streamed(back) == (b"".join(pieces), True)


def test_memory_is_given_back_however_a_stream_ends():
    budget = BodyBudget(1 << 30)
    for finish in (Exchange.end, lambda one: one.refused(RequestRefusedError(503, "no", "x"), {})):
        one = Exchange(1 << 20, budget)
        one.receive(request_headers())
        one.receive(request_body(b"x" * 1000, end=False))
        assert budget.held_bytes == 1000
        finish(one)
        assert budget.held_bytes == 0


def test_empty_pieces_cost_nothing():
    one = exchange()
    one.receive(request_headers())
    for _ in range(1000):
        assert one.receive(request_body(b"", end=False)) == []
    one.receive(request_body(PROMPT))
    assert one.question.body == PROMPT


def test_a_buffered_request_gets_its_destination_with_the_body():
    one = exchange()
    (head,) = one.receive(request_headers(BUFFERED))
    assert head.HasField("request_headers")
    assert not head.request_headers.response.HasField("header_mutation")
    one.receive(request_body(PROMPT))
    assert one.question.body == PROMPT
    (answer,) = one.placed(Recorded(**{"x-data-parallel-rank": "3"}))
    assert destination(answer) == ADDRESSES
    assert set_headers(answer.request_body.response.header_mutation)["x-data-parallel-rank"] == "3"
    assert not answer.request_body.response.HasField("body_mutation")


def test_a_buffered_body_that_trailers_follow_is_complete():
    one = exchange()
    one.receive(request_headers(BUFFERED))
    one.receive(request_body(PROMPT, end=False))
    (answer,) = one.placed(Recorded())
    assert destination(answer) == ADDRESSES
    (trailers,) = one.receive(request_trailers())
    assert trailers.HasField("request_trailers")


def test_a_buffered_body_over_the_limit_is_placed_unread():
    one = exchange(limit=10)
    one.receive(request_headers(BUFFERED))
    one.receive(request_body(b"x" * 11))
    assert (one.question.body, one.question.body_bytes) == (None, 11)


def test_buffered_trailers_without_a_body_carry_the_destination_in_the_metadata():
    one = exchange()
    one.receive(request_headers(BUFFERED))
    one.receive(request_trailers())
    (answer,) = one.placed(Recorded())
    assert answer.HasField("request_trailers")
    assert answer.dynamic_metadata["envoy.lb"][DESTINATION] == ADDRESSES


@pytest.mark.parametrize("mode", [FULL_DUPLEX, BUFFERED, NONE, None])
def test_a_request_without_a_body_is_answered_at_once(mode):
    one = exchange()
    assert one.receive(request_headers(mode, end=True, path="/v1/models")) == []
    assert (one.question.body, one.question.body_bytes) == (None, 0)
    (answer,) = one.placed(Recorded())
    assert answer.HasField("request_headers")
    assert destination(answer) == ADDRESSES


@pytest.mark.parametrize("mode", [NONE, 1, 77])
def test_in_a_mode_without_readable_bodies_the_headers_decide(mode):
    one = exchange()
    one.receive(request_headers(mode))
    assert one.question.body is None
    (answer,) = one.placed(Recorded())
    assert destination(answer) == ADDRESSES
    (passed,) = one.receive(request_body(b"x"))
    assert passed.HasField("request_body")
    assert not passed.request_body.response.HasField("body_mutation")


def test_a_gateway_that_names_no_mode_streams():
    one = exchange()
    assert one.receive(request_headers(None)) == []
    one.receive(request_body(PROMPT))
    _, body = one.placed(Recorded())
    assert streamed([body]) == (PROMPT, True)


def test_what_the_client_claims_is_replaced_in_every_mode():
    one = exchange()
    one.receive(request_headers(**{DESTINATION: "6.6.6.6:1"}))
    one.receive(request_body(PROMPT))
    assert destination(one.placed(Recorded())[0]) == ADDRESSES
    one = exchange()
    (head,) = one.receive(request_headers(BUFFERED, **{DESTINATION: "6.6.6.6:1"}))
    assert list(head.request_headers.response.header_mutation.remove_headers) == [DESTINATION]


@pytest.mark.parametrize(
    ("hint", "read"),
    [
        (None, None),
        (["1.1.1.1:1", " 2.2.2.2:2 "], ["1.1.1.1:1", "2.2.2.2:2"]),
        ("1.1.1.1:1, 2.2.2.2:2,", ["1.1.1.1:1", "2.2.2.2:2"]),
        ("", []),
        ([], []),
        ([1, None, {}], []),
        (5, []),
        ({"a": "b"}, []),
    ],
)
def test_subset_hints_in_both_forms(hint, read):
    one = exchange()
    one.receive(request_headers(end=True, subset=hint))
    assert one.question.subset == read


def test_a_streamed_answer_comes_back_piece_by_piece():
    one, placement = placed(answer_mode=FULL_DUPLEX)
    (head,) = one.receive(response_headers(200, "text/event-stream", served="10.0.0.2:8000"))
    assert set_headers(head.response_headers.response.header_mutation) == {"x-kvsync-endpoint": "a"}
    for piece, end in ((b"data: 1\n\n", False), (b"data: 2\n\n", False), (b"", True)):
        assert streamed(one.receive(response_body(piece, end=end)), "response_body") == (piece, end)
    one.end()
    assert placement.told == [
        (200, "text/event-stream", "10.0.0.2:8000"),
        b"data: 1\n\n",
        b"data: 2\n\n",
        b"",
        "completed",
        "ended",
    ]


@pytest.mark.parametrize("answer_mode", [1, BUFFERED])
def test_an_answer_that_the_gateway_keeps_is_not_sent_back(answer_mode):
    one, _ = placed(answer_mode=answer_mode)
    one.receive(response_headers())
    (answer,) = one.receive(response_body(b"x" * 100))
    assert answer.HasField("response_body")
    assert answer.ByteSize() < 10


def test_trailers_complete_an_answer():
    one, placement = placed()
    one.receive(response_headers())
    one.receive(response_body(b"x", end=False))
    (answer,) = one.receive(response_trailers())
    assert answer.HasField("response_trailers")
    assert placement.told[-1] == "completed"


def test_an_answer_without_a_body_is_complete_with_its_headers():
    one, placement = placed()
    one.receive(response_headers(204, end=True))
    assert placement.told == [(204, "application/json", None), "completed"]


def test_a_stream_that_breaks_off_has_no_whole_answer():
    one, placement = placed()
    one.receive(response_headers())
    one.receive(response_body(b"x", end=False))
    one.end()
    one.end()
    assert placement.told[1:] == [b"x", "ended"]


def test_an_answer_of_the_gateway_itself_may_come_before_the_request_is_placed():
    one = exchange()
    one.receive(request_headers())
    (answer,) = one.receive(response_headers(408))
    assert answer.HasField("response_headers")
    (body,) = one.receive(response_body(b"late"))
    assert streamed([body], "response_body") == (b"late", True)
    one.end()


def test_a_refusal_is_an_openai_error_and_the_last_word():
    one = exchange()
    one.receive(request_headers())
    one.receive(request_body(PROMPT))
    (answer,) = one.refused(RequestRefusedError(503, "nobody", "service_unavailable", code="503"), {"x-a": "b"})
    immediate = answer.immediate_response
    assert immediate.status.code == 503
    assert json.loads(immediate.body)["error"] == {
        "message": "nobody",
        "type": "service_unavailable",
        "param": None,
        "code": "503",
    }
    assert set_headers(immediate.headers) == {"content-type": "application/json", "x-a": "b"}
    assert one.closed
    assert one.receive(request_body(b"more")) == []


def test_too_many_headers_are_refused():
    message = request_headers()
    for number in range(1001):
        message.request_headers.headers.headers.add(key=f"x-{number}", raw_value=b"v")
    with pytest.raises(RequestRefusedError) as caught:
        exchange().receive(message)
    assert caught.value.status == 431


def test_a_hostile_answer_with_many_headers_passes():
    one, placement = placed()
    message = response_headers(200, "text/event-stream")
    for number in range(5000):
        message.response_headers.headers.headers.add(key=f"x-{number}", raw_value=b"v")
    one.receive(message)
    assert placement.told == [(200, "text/event-stream", None)]


@pytest.mark.parametrize(
    "messages",
    [
        [request_body(PROMPT)],
        [request_trailers()],
        [request_headers(NONE), request_headers(NONE)],
        [type(request_body())()],
    ],
    ids=["body first", "trailers first", "headers twice", "empty message"],
)
def test_what_no_gateway_sends_is_an_error(messages):
    one = exchange()
    with pytest.raises(PickerProtocolError):  # noqa: PT012
        for message in messages:
            one.receive(message)
            if one.question is not None:
                one.placed(Recorded())


def test_a_gateway_that_only_lets_the_picker_watch_gets_no_answer():
    message = request_headers()
    message.observability_mode = True
    one = exchange()
    assert one.receive(message) == []
    one.receive(request_body(PROMPT))
    placement = Recorded()
    assert one.placed(placement) == []
    assert one.receive(response_headers()) == []
    assert placement.told == [(200, "application/json", None)]


def placed(answer_mode=FULL_DUPLEX):
    one, placement = exchange(), Recorded()
    one.receive(request_headers(answer_mode=answer_mode))
    one.receive(request_body(PROMPT))
    one.placed(placement)
    return one, placement
