"""`POST /v1/responses`: OpenAI's newer API, whole or streamed, with a bounded store of answers.

`previous_response_id` continues a stored conversation. The pod keeps the last `STORED` answers.
"""

import time
from collections import OrderedDict
from typing import Any

import msgspec

from kvsync_events import TextError
from kvsync_mockpod.http.asgi import Request, Response, json_response
from kvsync_mockpod.http.chat import media_features
from kvsync_mockpod.http.choices import Choice
from kvsync_mockpod.http.errors import HttpError, bad_request, not_found
from kvsync_mockpod.http.schemas import ResponsesRequest
from kvsync_mockpod.http.session import Sampling, Session, check_ready, pick_model, pick_rank, request_id
from kvsync_mockpod.http.streaming import Framing, Usage, encode, make_choices, run_to_end, stream
from kvsync_mockpod.pod import Pod
from kvsync_mockpod.text import render_chat

STORED = 256
_decoder = msgspec.json.Decoder(ResponsesRequest, strict=False)
Turns = list[dict[str, Any]]


class ResponseStore:
    """Answers by id, each with its conversation; the oldest is dropped when the store is full."""

    def __init__(self, limit: int = STORED) -> None:
        self._limit = limit
        self._kept: OrderedDict[str, tuple[dict[str, Any], Turns]] = OrderedDict()

    def put(self, answer: dict[str, Any], turns: Turns) -> None:
        """Store an answer."""
        self._kept[answer["id"]] = (answer, turns)
        while len(self._kept) > self._limit:
            self._kept.popitem(last=False)

    def get(self, name: str) -> tuple[dict[str, Any], Turns]:
        """An answer and its conversation. Raises `HttpError` 404."""
        found = self._kept.get(name)
        if found is None:
            raise not_found(f"Response with id '{name[:100]}' not found.", "previous_response_id")
        return found


class Responses:
    """The endpoints, with their store."""

    def __init__(self) -> None:
        self._store = ResponseStore()

    async def get(self, pod: Pod, request: Request) -> Response:
        """Return a stored answer. Raises `HttpError` 404."""
        del pod
        return json_response(self._store.get(request.path_parameter)[0])

    async def create(self, pod: Pod, request: Request) -> Response | None:
        """Serve one request. Raises `HttpError`, `ClientDisconnectedError`."""
        body = await request.decode(_decoder)
        check_ready(pod)
        model, adapter = pick_model(pod, body.model)
        turns = self._turns(body)
        opening = [{"role": "system", "content": body.instructions}] if body.instructions else []
        try:
            prompt = render_chat(pod.tokenizer, [*opening, *turns], tools=body.tools or ())
        except TextError as error:
            raise bad_request(str(error), "input") from None
        sampling = Sampling(
            max_tokens=body.max_output_tokens or pod.config.max_model_len,
            seed=body.seed,
            ignore_eos=body.ignore_eos,
            priority=body.priority,
            cache_salt=body.cache_salt,
            session_id=request.header(b"x-session-id"),
            lora=adapter,
            opening=True,
            media=media_features(prompt),
        )
        answer_id = request_id(request, "resp", body.request_id)
        async with Session(pod, request, pick_rank(pod, request), final_only=not body.stream) as session:
            session.submit(answer_id, [prompt.token_ids], sampling)
            choices = make_choices(session, (), include_stop=False)
            shape = _Shape(answer_id, model, body, choices[0])
            if body.stream:
                await stream(request, session, choices, _ResponseFraming(shape))
            else:
                await run_to_end(session, choices)
            answer = shape.answer()
            if body.store:
                self._store.put(answer, [*turns, {"role": "assistant", "content": choices[0].text}])
            return None if body.stream else json_response(answer)

    def _turns(self, body: ResponsesRequest) -> Turns:
        """The conversation: the stored one, followed by the input. Raises `HttpError`."""
        turns: Turns = []
        if body.previous_response_id is not None:
            turns += self._store.get(body.previous_response_id)[1]
        if isinstance(body.input, str):
            return [*turns, {"role": "user", "content": body.input}]
        for index, item in enumerate(body.input):
            kind = item.get("type", "message")
            if kind == "message":
                turns.append({"role": item.get("role"), "content": item.get("content")})
            elif kind in ("function_call", "function_call_output", "reasoning"):
                turns.append({"role": "tool", "content": str(item.get("output", item.get("arguments", "")))})
            else:
                raise bad_request(f"input[{index}].type: {str(kind)[:80]!r} is not known", "input")
        return turns


class _Shape:
    """Builds the response object at every stage."""

    def __init__(self, answer_id: str, model: str, body: ResponsesRequest, choice: Choice) -> None:
        self.choice = choice
        self.item_id = "msg" + answer_id.removeprefix("resp")
        self._base = {
            "id": answer_id,
            "object": "response",
            "created_at": int(time.time()),
            "model": model,
            "instructions": body.instructions,
            "metadata": body.metadata or {},
            "parallel_tool_calls": True,
            "temperature": body.temperature,
            "tool_choice": "auto",
            "tools": body.tools or [],
            "top_p": body.top_p,
            "max_output_tokens": body.max_output_tokens,
            "previous_response_id": body.previous_response_id,
            "error": None,
        }

    def content(self) -> dict[str, Any]:
        """The only part of the only item."""
        return {"type": "output_text", "text": self.choice.text, "annotations": [], "logprobs": None}

    def item(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        """The only item."""
        return {"id": self.item_id, "type": "message", "role": "assistant", "status": status, "content": content}

    def empty(self) -> dict[str, Any]:
        """The response before anything is generated."""
        return {**self._base, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}

    def answer(self) -> dict[str, Any]:
        """The response after its end."""
        complete = self.choice.finish_reason == "stop"
        status = "completed" if complete else "incomplete"
        usage = Usage([self.choice], 1, details=True)
        return {
            **self._base,
            "status": status,
            "output": [self.item(status, [self.content()])],
            "incomplete_details": None if complete else {"reason": "max_output_tokens"},
            "usage": {
                "input_tokens": usage.prompt,
                "input_tokens_details": {"cached_tokens": usage.cached},
                "output_tokens": usage.completion,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": usage.prompt + usage.completion,
            },
        }


class _ResponseFraming(Framing):
    """OpenAI's response events, numbered."""

    def __init__(self, shape: _Shape) -> None:
        self._shape = shape
        self._number = -1

    def _event(self, name: str, **value: object) -> bytes:
        self._number += 1
        data = {"type": name, "sequence_number": self._number, **value}
        return b"event: " + name.encode() + b"\ndata: " + encode(data) + b"\n\n"

    def _place(self) -> dict[str, object]:
        return {"item_id": self._shape.item_id, "output_index": 0, "content_index": 0}

    def begin(self) -> bytes:
        shape = self._shape
        part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": None}
        return b"".join(
            (
                self._event("response.created", response=shape.empty()),
                self._event("response.in_progress", response=shape.empty()),
                self._event("response.output_item.added", output_index=0, item=shape.item("in_progress", [])),
                self._event("response.content_part.added", **self._place(), part=part),
            )
        )

    def delta(self, choice: Choice, text: str, tokens: list[int]) -> bytes:
        del choice, tokens
        return self._event("response.output_text.delta", **self._place(), delta=text, logprobs=[])

    def end(self, choice: Choice, text: str, tokens: list[int]) -> bytes:
        shape = self._shape
        answer = shape.answer()
        last = self.delta(choice, text, tokens) if text else b""
        return last + b"".join(
            (
                self._event("response.output_text.done", **self._place(), text=choice.text, logprobs=[]),
                self._event("response.content_part.done", **self._place(), part=shape.content()),
                self._event("response.output_item.done", output_index=0, item=answer["output"][0]),
                self._event(f"response.{answer['status']}", response=answer),
            )
        )

    def finish(self) -> bytes:
        return b""

    def error(self, error: HttpError) -> bytes:
        return self._event("error", message=error.message, code=str(error.status), param=error.param)
