"""One stream of the external processing protocol as a state machine, without I/O.

`receive` takes a message of the gateway and returns the answers to it. When the exchange knows enough of the request,
`question` is set; its owner finds a placement and passes it to `placed` or `refused`, which return the answers that
were waiting for it. Everything after that is passed on, and reported to the placement.

The body mode decides when the question is put:

- streamed in both directions: at the end of the body or when it is too long. The headers are answered first, then the
  body is sent back in pieces, then trailers are answered.
- buffered: the headers are answered at once, and the destination is part of the answer to the body.
- any other mode, or a request without a body: at the headers, about a body that nobody can read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol

from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingResponse

from kvsync_router.errors import PickerProtocolError, RequestRefusedError
from kvsync_router.picker import messages
from kvsync_router.picker.bodies import BodyBudget, WaitingBody
from kvsync_router.picker.messages import DESTINATION, Modes


@dataclass(frozen=True, slots=True)
class Question:
    """Where should this request go?"""

    headers: Mapping[str, str]
    """With names in lower case."""
    subset: list[str] | None
    """The addresses that may be picked, as the gateway wrote them; None for all."""
    body: bytes | None
    """None if there is no body that can be read: none was sent, it is too long, or the gateway does not show it."""
    body_bytes: int
    """Length of the body as far as it has arrived."""

    @property
    def path(self) -> str:
        """The path, without a query."""
        return self.headers.get(":path", "").partition("?")[0]


class Placement(Protocol):
    """Where a request goes, and who wants to know what becomes of it."""

    @property
    def destination(self) -> str:
        """The addresses to try, separated by commas."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Further headers for the engine."""
        ...

    def began(self, status: int, content_type: str, served: str | None) -> Mapping[str, str]:
        """The answer has begun; `served` is the address it comes from. Returns headers for the client."""
        ...

    def add(self, piece: bytes) -> None:
        """A piece of the answer has arrived."""
        ...

    def completed(self) -> None:
        """The whole answer has passed."""
        ...

    def ended(self) -> None:
        """The stream has ended, with a whole answer or without. It is called once."""
        ...


class _Step(Enum):
    """What is expected of the request."""

    HEADERS = auto()
    COLLECTING = auto()
    """A streamed body is kept until its end."""
    BUFFERED = auto()
    """The headers are answered, and the body comes in one message."""
    PASSING = auto()
    """The request is placed, and the rest of its body passes."""
    CLOSED = auto()
    """The client has an answer of the picker. Nothing more is said."""


class Exchange:
    """The state of one stream."""

    def __init__(self, max_body_bytes: int, budget: BodyBudget) -> None:
        self.question: Question | None = None
        """Set when a placement is needed, until it is given."""
        self._step = _Step.HEADERS
        self._modes: Modes | None = None
        self._headers: dict[str, str] = {}
        self._subset: list[str] | None = None
        self._waiting = WaitingBody(max_body_bytes, budget)
        self._asked_at = ""
        self._silent = False
        """The gateway only lets the picker watch."""
        self._max_body_bytes = max_body_bytes
        self._placement: Placement | None = None
        self._answer_ended = False

    @property
    def closed(self) -> bool:
        """Whether the stream is to be ended by the picker."""
        return self._step is _Step.CLOSED

    def receive(self, message: Any) -> list[ProcessingResponse]:  # noqa: ANN401
        """Take a message of the gateway.

        Raises:
            PickerProtocolError: no gateway sends such a message at this point.
            RequestRefusedError: the client is to get this error.
        """
        if self.question is not None:
            raise PickerProtocolError("a message was taken before the request was placed")
        if self.closed:
            return []
        phase = messages.phase_of(message)
        if self._modes is None:
            self._modes = messages.modes_of(message)
            self._silent = message.observability_mode
        answers: list[ProcessingResponse] = getattr(self, f"_on_{phase}")(message)
        return [] if self._silent else answers

    def placed(self, placement: Placement) -> list[ProcessingResponse]:
        """The request goes there. Returns the answers that waited."""
        self.question = None
        self._placement = placement
        buffered, self._step = self._step is _Step.BUFFERED, _Step.PASSING
        by_trailers = self._asked_at == "request_trailers"
        common = messages.routed(placement.destination, placement.headers)
        if buffered:  # trailers cannot change headers, but they can set the metadata
            first = messages.trailers_answer() if by_trailers else messages.body_answer(common)
        else:
            first = messages.headers_answer(common)
        answers = [messages.with_destination(first, placement.destination)]
        if not buffered and self._asked_at != "request_headers":
            answers += self._held_back(by_trailers=by_trailers)
        return [] if self._silent else answers

    def _held_back(self, *, by_trailers: bool) -> list[ProcessingResponse]:
        """The answers to the body, and to the trailers, that were received before the request was placed."""
        answers: list[ProcessingResponse] = []
        held = self._waiting.content
        self._waiting.release()
        if held or not by_trailers:
            answers += messages.echoes(held, end=self._asked_at == "request_body")
        if by_trailers:
            answers.append(messages.trailers_answer())
        return answers

    def refused(self, error: RequestRefusedError, headers: Mapping[str, str]) -> list[ProcessingResponse]:
        """The client gets an error of the picker, with `headers`."""
        self.question = None
        self._step = _Step.CLOSED
        self._waiting.release()
        return [] if self._silent else [messages.refusal(error, headers)]

    def end(self) -> None:
        """The stream has ended."""
        self._step = _Step.CLOSED
        self._waiting.release()
        if self._placement is not None:
            placement, self._placement = self._placement, None
            placement.ended()

    def _ask(self, phase: str, body: bytes = b"", *, readable: bool) -> list[ProcessingResponse]:
        self._asked_at = phase
        self.question = Question(self._headers, self._subset, body if readable else None, len(body))
        return []

    def _on_request_headers(self, message: Any) -> list[ProcessingResponse]:  # noqa: ANN401
        if self._step is not _Step.HEADERS:
            raise PickerProtocolError("the headers of the request came twice")
        modes = self._modes or Modes()
        messages.check_headers(message.request_headers)
        self._headers = messages.header_values(message.request_headers)
        self._subset = messages.subset_hint(message)
        if message.request_headers.end_of_stream:
            return self._ask("request_headers", readable=False)
        if modes.request_is_streamed:
            self._step = _Step.COLLECTING
            return []
        if modes.request_is_buffered:
            self._step = _Step.BUFFERED
            claims = DESTINATION in self._headers
            return [messages.headers_answer(messages.without_header(DESTINATION) if claims else None)]
        return self._ask("request_headers", readable=False)

    def _on_request_body(self, message: Any) -> list[ProcessingResponse]:  # noqa: ANN401
        body: bytes = message.request_body.body
        end: bool = message.request_body.end_of_stream
        if self._step is _Step.HEADERS:
            raise PickerProtocolError("a body came before the headers of its request")
        if self._step is _Step.BUFFERED:
            return self._ask("request_body", body, readable=len(body) <= self._max_body_bytes)
        if self._step is _Step.COLLECTING:
            fits = self._waiting.add(body)
            if fits and not end:
                return []
            return self._ask("request_body" if end else "too_long", self._waiting.seal(), readable=fits)
        if self._modes is not None and self._modes.request_is_streamed:
            return list(messages.echoes(body, end=end))
        return [messages.body_answer()]

    def _on_request_trailers(self, _message: Any) -> list[ProcessingResponse]:  # noqa: ANN401
        if self._step is _Step.HEADERS:
            raise PickerProtocolError("trailers came before the headers of their request")
        if self._step is _Step.COLLECTING:
            return self._ask("request_trailers", self._waiting.seal(), readable=True)
        if self._step is _Step.BUFFERED:
            return self._ask("request_trailers", readable=False)
        return [messages.trailers_answer()]

    def _on_response_headers(self, message: Any) -> list[ProcessingResponse]:  # noqa: ANN401
        if self._placement is None:
            return [messages.headers_answer(of_answer=True)]
        found = messages.header_values(message.response_headers)
        status = found.get(":status", "")
        told = self._placement.began(
            int(status) if status.isascii() and status.isdigit() else 0,
            found.get("content-type", ""),
            messages.served_address(message),
        )
        if message.response_headers.end_of_stream:
            self._complete()
        return [messages.headers_answer(messages.with_headers(told), of_answer=True)]

    def _on_response_body(self, message: Any) -> list[ProcessingResponse]:  # noqa: ANN401
        body: bytes = message.response_body.body
        end: bool = message.response_body.end_of_stream
        if self._placement is not None:
            self._placement.add(body)
            if end:
                self._complete()
        if self._modes is not None and self._modes.response_is_streamed:
            return list(messages.echoes(body, end=end, of_answer=True))
        return [messages.body_answer(of_answer=True)]

    def _on_response_trailers(self, _message: Any) -> list[ProcessingResponse]:  # noqa: ANN401
        self._complete()
        return [messages.trailers_answer(of_answer=True)]

    def _complete(self) -> None:
        if self._placement is not None and not self._answer_ended:
            self._answer_ended = True
            self._placement.completed()
