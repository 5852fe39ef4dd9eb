"""`POST /v1/completions`: text or token ids in, text out, whole or streamed."""

import time
from typing import Any, cast

import msgspec

from kvsync_mockpod.errors import TextError
from kvsync_mockpod.http.asgi import Request, Response, json_response
from kvsync_mockpod.http.choices import Choice
from kvsync_mockpod.http.errors import bad_request
from kvsync_mockpod.http.schemas import CompletionRequest
from kvsync_mockpod.http.session import (
    Sampling,
    Session,
    check_ready,
    pick_model,
    pick_rank,
    report_full,
    request_id,
    sampling_stops,
)
from kvsync_mockpod.http.streaming import Framing, Usage, encode, make_choices, run_to_end, stream
from kvsync_mockpod.pod import Pod

__all__ = ["completions"]

_TAIL = b',"logprobs":null,"finish_reason":null,"stop_reason":null}]}\n\n'
_decoder = msgspec.json.Decoder(CompletionRequest, strict=False)


async def completions(pod: Pod, request: Request) -> Response | None:
    """Serve one completion request. Raises `HttpError`, `ClientDisconnected`."""
    body = await request.decode(_decoder)
    check_ready(pod)
    model, adapter = pick_model(pod, body.model)
    if body.suffix:
        message = "suffix is not supported"
        raise bad_request(message, "suffix")
    prompts = _prompts(pod, body.prompt)
    max_tokens = pod.config.max_model_len if body.max_tokens is None else body.max_tokens
    if max_tokens == 0 and not body.echo:
        message = "max_tokens must be at least 1, got 0"
        raise bad_request(message, "max_tokens")
    sampling = Sampling(
        max_tokens=max_tokens,
        n=body.n or 1,
        seed=body.seed,
        stops=sampling_stops(body.stop),
        stop_token_ids=tuple(body.stop_token_ids or ()),
        include_stop=body.include_stop_str_in_output,
        ignore_eos=body.ignore_eos,
        min_tokens=body.min_tokens,
        priority=body.priority,
        cache_salt=body.cache_salt,
        session_id=body.session_id or request.header(b"x-session-id"),
        lora=adapter,
        report_full=report_full(body.vllm_xargs),
    )
    answer_id = request_id(request, "cmpl", body.request_id)
    plain = not body.stream and not sampling.stops
    async with Session(pod, request, pick_rank(pod, request), final_only=plain) as session:
        session.submit(answer_id, prompts, sampling)
        choices = make_choices(session, sampling.stops, include_stop=sampling.include_stop)
        if body.stream:
            framing = _CompletionFraming(pod, body, answer_id, model, choices, sampling.n)
            await stream(request, session, choices, framing)
            return None
        await run_to_end(session, choices)
        usage = Usage(list(choices.values()), sampling.n, details=pod.config.enable_prompt_tokens_details)
        return json_response(
            {
                "id": answer_id,
                "object": "text_completion",
                "created": int(time.time()),
                "model": model,
                "choices": [_whole(pod, body, choice) for choice in choices.values()],
                "usage": usage.as_openai(),
                "kv_transfer_params": None,
            }
        )


def _prompts(pod: Pod, prompt: object) -> list[list[int]]:
    """The prompts as token ids. Raises `HttpError` for none, an empty one or a mixed list."""
    if prompt is None:
        message = "prompt: a string or a list of token ids is needed"
        raise bad_request(message, "prompt")
    try:
        prompts = _tokenized(pod, prompt)
    except TextError as error:
        raise bad_request(f"prompt: {error}", "prompt") from None
    if not all(prompts):
        message = "The decoder prompt cannot be empty"
        raise bad_request(message, "prompt")
    return prompts


def _tokenized(pod: Pod, prompt: object) -> list[list[int]]:
    if isinstance(prompt, str):
        return [pod.tokenizer.encode(prompt)]
    entries = cast("list[Any]", prompt)
    kinds = set(map(type, entries))
    if kinds == {int}:
        return [entries]
    if kinds == {str}:
        return [pod.tokenizer.encode(text) for text in entries]
    if kinds == {list}:
        return entries
    message = "prompt: a list holds only strings, only token ids or only lists of token ids"
    raise bad_request(message, "prompt")


def _echoed(pod: Pod, body: CompletionRequest, choice: Choice) -> str:
    return pod.tokenizer.decode(choice.generation.request.prompt_token_ids) if body.echo else ""


def _whole(pod: Pod, body: CompletionRequest, choice: Choice) -> dict[str, Any]:
    text = "" if body.max_tokens == 0 else choice.text
    shown: dict[str, Any] = {
        "index": choice.index,
        "text": _echoed(pod, body, choice) + text,
        "logprobs": None,
        "finish_reason": choice.finish_reason,
        "stop_reason": choice.stop_reason,
        "token_ids": None,
        "prompt_token_ids": None,
    }
    if body.return_token_ids:
        shown["token_ids"] = choice.token_ids
        shown["prompt_token_ids"] = choice.generation.request.prompt_token_ids
    return shown


class _CompletionFraming(Framing):
    """OpenAI's completion chunks; the usual one is bytes around the text, without building an object."""

    def __init__(
        self, pod: Pod, body: CompletionRequest, answer_id: str, model: str, choices: dict[int, Choice], n: int
    ) -> None:
        options = body.stream_options
        self._pod = pod
        self._body = body
        self._choices = choices
        self._n = n
        self._usage = options is not None and options.include_usage
        self._continuous = options is not None and options.continuous_usage_stats
        self._base = {"id": answer_id, "object": "text_completion", "created": int(time.time()), "model": model}
        self._plain = not (self._continuous or body.return_token_ids or body.echo)
        head = encode(self._base)[:-1] + b',"choices":[{"index":%d,"text":'
        self._heads = {index: b"data: " + head.replace(b"%d", b"%d" % index) for index in choices}
        self._first = set(choices)

    def begin(self) -> bytes:
        return b""

    def delta(self, choice: Choice, text: str, tokens: list[int]) -> bytes:
        if self._plain:
            return (
                self._heads[choice.index]
                + encode(text)
                + b',"logprobs":null,"finish_reason":null,"stop_reason":null}]}\n\n'
            )
        return self._chunk(choice, text, tokens)

    def end(self, choice: Choice, text: str, tokens: list[int]) -> bytes:
        return self._chunk(choice, text, tokens)

    def _chunk(self, choice: Choice, text: str, tokens: list[int]) -> bytes:
        first = choice.index in self._first
        self._first.discard(choice.index)
        if self._body.max_tokens == 0:
            text = ""
        shown: dict[str, Any] = {
            "index": choice.index,
            "text": _echoed(self._pod, self._body, choice) + text if first else text,
            "logprobs": None,
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
        }
        if self._body.return_token_ids:
            shown["token_ids"] = tokens
            if first:
                shown["prompt_token_ids"] = choice.generation.request.prompt_token_ids
        chunk: dict[str, Any] = {**self._base, "choices": [shown]}
        if self._continuous:
            chunk["usage"] = self._usage_now().as_openai()
        return b"data: " + encode(chunk) + b"\n\n"

    def _usage_now(self) -> Usage:
        details = self._pod.config.enable_prompt_tokens_details
        return Usage(list(self._choices.values()), self._n, details=details)

    def finish(self) -> bytes:
        if not self._usage:
            return b"data: [DONE]\n\n"
        chunk = {**self._base, "choices": [], "usage": self._usage_now().as_openai()}
        return b"data: " + encode(chunk) + b"\n\ndata: [DONE]\n\n"
