"""`POST /v1/messages`: Anthropic's API on the same engine, whole or streamed."""

from typing import Any

import msgspec

from kvsync_events import TextError
from kvsync_mockpod.http.asgi import Request, Response, json_response
from kvsync_mockpod.http.chat import media_features
from kvsync_mockpod.http.choices import Choice
from kvsync_mockpod.http.errors import HttpError, bad_request
from kvsync_mockpod.http.schemas import CountTokensRequest, MessagesRequest
from kvsync_mockpod.http.session import (
    Sampling,
    Session,
    check_ready,
    pick_model,
    pick_rank,
    request_id,
    sampling_stops,
)
from kvsync_mockpod.http.streaming import Framing, Usage, encode, make_choices, run_to_end, stream
from kvsync_mockpod.pod import Pod
from kvsync_mockpod.text import ChatPrompt, render_chat

_decoder = msgspec.json.Decoder(MessagesRequest, strict=False)
_count_decoder = msgspec.json.Decoder(CountTokensRequest, strict=False)
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def anthropic_error(error: HttpError) -> dict[str, Any]:
    """An error as Anthropic's clients expect it."""
    return {"type": "error", "error": {"type": _ERRORS.get(error.status, "api_error"), "message": error.message}}


def _render(
    pod: Pod,
    turns: list[dict[str, Any]],
    system: str | list[dict[str, Any]] | None,
    tools: list[dict[str, Any]] | None,
) -> ChatPrompt:
    opening = [{"role": "system", "content": system}] if system else []
    try:
        return render_chat(pod.tokenizer, [*opening, *turns], tools=tools or ())
    except TextError as error:
        raise bad_request(str(error), "messages") from None


async def messages(pod: Pod, request: Request) -> Response | None:
    """Serve one message request. Raises `HttpError`, `ClientDisconnectedError`."""
    body = await request.decode(_decoder)
    check_ready(pod)
    model, adapter = pick_model(pod, body.model)
    prompt = _render(pod, body.messages, body.system, body.tools)
    sampling = Sampling(
        max_tokens=body.max_tokens,
        stops=sampling_stops(body.stop_sequences),
        session_id=request.header(b"x-session-id"),
        lora=adapter,
        opening=True,
        media=media_features(prompt),
    )
    answer_id = request_id(request, "msg")
    plain = not body.stream and not sampling.stops
    async with Session(pod, request, pick_rank(pod, request), final_only=plain) as session:
        session.submit(answer_id, [prompt.token_ids], sampling)
        choices = make_choices(session, sampling.stops, include_stop=False)
        if body.stream:
            await stream(request, session, choices, _MessageFraming(answer_id, model, choices[0]))
            return None
        await run_to_end(session, choices)
        return json_response(_message(answer_id, model, choices[0]))


async def count_tokens(pod: Pod, request: Request) -> Response:
    """The number of tokens that a message request would have. Raises `HttpError`."""
    body = await request.decode(_count_decoder)
    pick_model(pod, body.model)
    prompt = _render(pod, body.messages, body.system, body.tools)
    return json_response({"input_tokens": len(prompt.token_ids)})


def _stop(choice: Choice) -> tuple[str | None, str | None]:
    """`stop_reason` and `stop_sequence` of a choice."""
    if choice.finish_reason == "stop":
        if isinstance(choice.stop_reason, str):
            return "stop_sequence", choice.stop_reason
        return "end_turn", None
    return {"length": "max_tokens", None: None}.get(choice.finish_reason, "end_turn"), None


def _message(answer_id: str, model: str, choice: Choice) -> dict[str, Any]:
    reason, sequence = _stop(choice)
    usage = Usage([choice], 1, details=True)
    return {
        "id": answer_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": choice.text}],
        "stop_reason": reason,
        "stop_sequence": sequence,
        "usage": {"input_tokens": usage.prompt, "output_tokens": usage.completion},
    }


def _event(name: str, value: dict[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + encode({"type": name, **value}) + b"\n\n"


class _MessageFraming(Framing):
    """Anthropic's events: the message, one content block, its deltas, and the ends of both."""

    def __init__(self, answer_id: str, model: str, choice: Choice) -> None:
        self._id = answer_id
        self._model = model
        self._choice = choice
        self._prompt = choice.generation.prompt_tokens

    def begin(self) -> bytes:
        message: dict[str, Any] = {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": self._prompt, "output_tokens": 0},
        }
        block = {"index": 0, "content_block": {"type": "text", "text": ""}}
        return _event("message_start", {"message": message}) + _event("content_block_start", block)

    def delta(self, choice: Choice, text: str, tokens: list[int]) -> bytes:
        del choice, tokens
        return _event("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": text}})

    def end(self, choice: Choice, text: str, tokens: list[int]) -> bytes:
        last = self.delta(choice, text, tokens) if text else b""
        return last + _event("content_block_stop", {"index": 0})

    def finish(self) -> bytes:
        reason, sequence = _stop(self._choice)
        delta = {
            "delta": {"stop_reason": reason, "stop_sequence": sequence},
            "usage": {"output_tokens": len(self._choice.token_ids)},
        }
        return _event("message_delta", delta) + _event("message_stop", {})

    def error(self, error: HttpError) -> bytes:
        return _event("error", {"error": anthropic_error(error)["error"]})
