"""`POST /v1/chat/completions`: messages in, an assistant's message out, whole or streamed."""

import time
from typing import Any

import msgspec

from kvsync_mockpod.engine import MMFeature
from kvsync_mockpod.errors import TextError
from kvsync_mockpod.http.asgi import Request, Response, json_response
from kvsync_mockpod.http.choices import Choice
from kvsync_mockpod.http.errors import bad_request
from kvsync_mockpod.http.schemas import ChatRequest
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
from kvsync_mockpod.text import ChatPrompt, render_chat

__all__ = ["chat_completions", "media_features"]

_decoder = msgspec.json.Decoder(ChatRequest, strict=False)


def media_features(prompt: ChatPrompt) -> tuple[MMFeature, ...]:
    """The prompt's pictures and sounds as the engine's block identity wants them."""
    return tuple(MMFeature(part.identity, part.offset, part.length) for part in prompt.media)


async def chat_completions(pod: Pod, request: Request) -> Response | None:
    """Serve one chat request. Raises `HttpError`, `ClientDisconnected`."""
    body = await request.decode(_decoder)
    check_ready(pod)
    model, adapter = pick_model(pod, body.model)
    if body.add_generation_prompt and body.continue_final_message:
        message = "continue_final_message and add_generation_prompt cannot both be true"
        raise bad_request(message, "continue_final_message")
    try:
        prompt = render_chat(
            pod.tokenizer,
            body.messages,
            tools=body.tools or (),
            add_generation_prompt=body.add_generation_prompt,
        )
    except TextError as error:
        raise bad_request(str(error), "messages") from None
    wanted = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    if wanted == 0:
        message = "max_tokens must be at least 1, got 0"
        raise bad_request(message, "max_tokens")
    sampling = Sampling(
        max_tokens=pod.config.max_model_len if wanted is None else wanted,
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
        opening=True,
        media=media_features(prompt),
        report_full=report_full(body.vllm_xargs),
    )
    answer_id = request_id(request, "chatcmpl", body.request_id)
    plain = not body.stream and not sampling.stops
    async with Session(pod, request, pick_rank(pod, request), final_only=plain) as session:
        session.submit(answer_id, [prompt.token_ids], sampling)
        choices = make_choices(session, sampling.stops, include_stop=sampling.include_stop)
        if body.stream:
            await stream(
                request, session, choices, _ChatFraming(pod, body, answer_id, model, choices, prompt.token_ids)
            )
            return None
        await run_to_end(session, choices)
        usage = Usage(list(choices.values()), sampling.n, details=pod.config.enable_prompt_tokens_details)
        return json_response(
            {
                "id": answer_id,
                "object": "chat.completion",
                "created": int(time.time()),
                "model": model,
                "choices": [_whole(body, choice) for choice in choices.values()],
                "usage": usage.as_openai(),
                "prompt_logprobs": None,
                "prompt_token_ids": prompt.token_ids if body.return_token_ids else None,
                "kv_transfer_params": None,
            }
        )


def _whole(body: ChatRequest, choice: Choice) -> dict[str, Any]:
    return {
        "index": choice.index,
        "message": {"role": "assistant", "content": choice.text, "refusal": None, "tool_calls": []},
        "logprobs": None,
        "finish_reason": choice.finish_reason,
        "stop_reason": choice.stop_reason,
        "token_ids": choice.token_ids if body.return_token_ids else None,
    }


class _ChatFraming(Framing):
    """OpenAI's chat chunks."""

    def __init__(
        self,
        pod: Pod,
        body: ChatRequest,
        answer_id: str,
        model: str,
        choices: dict[int, Choice],
        prompt: list[int],
    ) -> None:
        options = body.stream_options
        self._pod = pod
        self._body = body
        self._choices = choices
        self._prompt = prompt
        self._usage = options is not None and options.include_usage
        self._continuous = options is not None and options.continuous_usage_stats
        self._base = {"id": answer_id, "object": "chat.completion.chunk", "created": int(time.time()), "model": model}
        self._plain = not (self._continuous or body.return_token_ids)
        head = encode(self._base)[:-1] + b',"choices":[{"index":%d,"delta":{"content":'
        self._heads = {index: b"data: " + head.replace(b"%d", b"%d" % index) for index in choices}

    def begin(self) -> bytes:
        parts = []
        for index in self._choices:
            shown = {
                "index": index,
                "delta": {"role": "assistant", "content": ""},
                "logprobs": None,
                "finish_reason": None,
            }
            chunk: dict[str, Any] = {**self._base, "choices": [shown]}
            if self._body.return_token_ids:
                chunk["prompt_token_ids"] = self._prompt
            parts.append(b"data: " + encode(chunk) + b"\n\n")
        return b"".join(parts)

    def delta(self, choice: Choice, text: str, tokens: list[int]) -> bytes:
        if self._plain:
            return self._heads[choice.index] + encode(text) + b'},"logprobs":null,"finish_reason":null}]}\n\n'
        return self._chunk(choice, text, tokens)

    def end(self, choice: Choice, text: str, tokens: list[int]) -> bytes:
        return self._chunk(choice, text, tokens)

    def _chunk(self, choice: Choice, text: str, tokens: list[int]) -> bytes:
        shown: dict[str, Any] = {
            "index": choice.index,
            "delta": {"content": text},
            "logprobs": None,
            "finish_reason": choice.finish_reason,
        }
        if choice.finish_reason is not None:
            shown["stop_reason"] = choice.stop_reason
        if self._body.return_token_ids:
            shown["token_ids"] = tokens
        chunk: dict[str, Any] = {**self._base, "choices": [shown]}
        if self._continuous:
            chunk["usage"] = self._usage_now().as_openai()
        return b"data: " + encode(chunk) + b"\n\n"

    def _usage_now(self) -> Usage:
        details = self._pod.config.enable_prompt_tokens_details
        return Usage(list(self._choices.values()), len(self._choices), details=details)

    def finish(self) -> bytes:
        if not self._usage:
            return b"data: [DONE]\n\n"
        chunk = {**self._base, "choices": [], "usage": self._usage_now().as_openai()}
        return b"data: " + encode(chunk) + b"\n\ndata: [DONE]\n\n"
