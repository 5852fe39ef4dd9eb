"""`POST /v1/chat/completions`: answers messages with an assistant's message, whole or streamed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from kvsync_events import TextError
from kvsync_mockpod.engine import MMFeature
from kvsync_mockpod.http.answers import Answer, read_sampling, refuse_no_tokens, serve, truncate
from kvsync_mockpod.http.asgi import Request, Response
from kvsync_mockpod.http.choices import Choice
from kvsync_mockpod.http.errors import bad_request
from kvsync_mockpod.http.schemas import ChatRequest, TemplateFields
from kvsync_mockpod.http.session import check_ready, pick_model
from kvsync_mockpod.pod import Pod
from kvsync_mockpod.text import ChatPrompt, render_chat

_decoder = msgspec.json.Decoder(ChatRequest, strict=False)


def media_features(prompt: ChatPrompt) -> tuple[MMFeature, ...]:
    """The images and sounds of a prompt in the form of the engine's block identity."""
    return tuple(MMFeature(part.identity, part.offset, part.length) for part in prompt.media)


async def chat_completions(pod: Pod, request: Request) -> Response | None:
    """Serve one chat request. Raises `HttpError`, `ClientDisconnectedError`."""
    body = await request.decode(_decoder)
    check_ready(pod)
    model, adapter = pick_model(pod, body.model)
    max_tokens = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    refuse_no_tokens(max_tokens)
    prompt = _render(pod, body)
    prompt = replace(prompt, token_ids=truncate(pod, body, max_tokens, prompt.token_ids))
    sampling = replace(
        read_sampling(pod, request, body, max_tokens, adapter), opening=True, media=media_features(prompt)
    )
    answer = _ChatAnswer(pod, request, body, model, prompt.token_ids)
    return await serve(request, body, [prompt.token_ids], sampling, answer)


def _render(pod: Pod, body: ChatRequest) -> ChatPrompt:
    arguments = dict(body.chat_template_kwargs or {})
    if body.documents is not None:
        arguments["documents"] = body.documents
    if body.reasoning_effort is not None:
        arguments["reasoning_effort"] = body.reasoning_effort
        arguments.setdefault("enable_thinking", body.reasoning_effort != "none")
    return render(pod, body, body.messages, arguments)


def render(
    pod: Pod, fields: TemplateFields, messages: Sequence[Mapping[str, object]], arguments: Mapping[str, object]
) -> ChatPrompt:
    """Messages as a prompt, for a chat and for `/tokenize` alike. Raises `HttpError` 400."""
    if fields.chat_template is not None:
        raise bad_request(
            "Chat template is passed with request, but --trust-request-chat-template is not set.", "chat_template"
        )
    if fields.add_generation_prompt and fields.continue_final_message:
        raise bad_request(
            "continue_final_message and add_generation_prompt cannot both be true", "continue_final_message"
        )
    try:
        return render_chat(
            pod.tokenizer,
            messages,
            tools=fields.tools or (),
            arguments=arguments,
            add_generation_prompt=fields.add_generation_prompt,
            continue_final_message=fields.continue_final_message,
        )
    except TextError as error:
        raise bad_request(str(error), "messages") from None


class _ChatAnswer(Answer):
    """OpenAI's chat message and its chunks."""

    prefix = "chatcmpl"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"
    chunk_head = b',"delta":{"content":'
    chunk_tail = b'},"logprobs":null,"finish_reason":null}]}\n\n'

    def __init__(self, pod: Pod, request: Request, body: ChatRequest, model: str, prompt: list[int]) -> None:
        self._token_ids = bool(body.return_token_ids)
        self._prompt = prompt
        super().__init__(pod, request, body, model)

    def shows_more(self) -> bool:
        return self._token_ids

    def whole_choice(self, choice: Choice) -> dict[str, Any]:
        return {
            "index": choice.index,
            "message": {"role": "assistant", "content": choice.text, "refusal": None, "tool_calls": []},
            "logprobs": None,
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
            "token_ids": choice.token_ids if self._token_ids else None,
        }

    def whole_fields(self) -> dict[str, Any]:
        prompt = self._prompt if self._token_ids else None
        return {"prompt_logprobs": None, "prompt_token_ids": prompt, **super().whole_fields()}

    def begin(self) -> bytes:
        opening = {"role": "assistant", "content": ""}
        more = {"prompt_token_ids": self._prompt} if self._token_ids else {}
        return b"".join(
            self.event(
                choices=[{"index": index, "delta": opening, "logprobs": None, "finish_reason": None}],
                **more,
            )
            for index in self.choices
        )

    def chunk_choice(self, choice: Choice, text: str, tokens: list[int]) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "index": choice.index,
            "delta": {"content": text},
            "logprobs": None,
            "finish_reason": choice.finish_reason,
        }
        if choice.finish_reason is not None:
            shown["stop_reason"] = choice.stop_reason
        if self._token_ids:
            shown["token_ids"] = tokens
        return shown
