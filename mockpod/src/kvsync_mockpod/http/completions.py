"""`POST /v1/completions`: answers a prompt of text or token ids with text, whole or streamed."""

from typing import Any, cast

import msgspec

from kvsync_events import TextError
from kvsync_mockpod.http.answers import Answer, read_sampling, refuse_no_tokens, serve, truncate
from kvsync_mockpod.http.asgi import Request, Response
from kvsync_mockpod.http.choices import Choice
from kvsync_mockpod.http.errors import bad_request
from kvsync_mockpod.http.schemas import CompletionRequest
from kvsync_mockpod.http.session import check_ready, pick_model
from kvsync_mockpod.pod import Pod

_decoder = msgspec.json.Decoder(CompletionRequest, strict=False)


async def completions(pod: Pod, request: Request) -> Response | None:
    """Serve one completion request. Raises `HttpError`, `ClientDisconnectedError`."""
    body = await request.decode(_decoder)
    check_ready(pod)
    model, adapter = pick_model(pod, body.model)
    if body.suffix:
        raise bad_request("suffix is not supported", "suffix")
    prompts = [truncate(pod, body, body.max_tokens, prompt) for prompt in _prompts(pod, body.prompt)]
    if not body.echo:
        refuse_no_tokens(body.max_tokens)
    sampling = read_sampling(pod, request, body, body.max_tokens, adapter)
    return await serve(request, body, prompts, sampling, _CompletionAnswer(pod, request, body, model))


def _prompts(pod: Pod, prompt: object) -> list[list[int]]:
    """The prompts as token ids. Raises `HttpError` if there is none, or an empty or mixed one."""
    if prompt is None:
        raise bad_request("prompt: must be a string or a list of token ids", "prompt")
    try:
        prompts = _tokenized(pod, prompt)
    except TextError as error:
        raise bad_request(f"prompt: {error}", "prompt") from None
    if not all(prompts):
        raise bad_request("The decoder prompt cannot be empty", "prompt")
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
    raise bad_request("prompt: a list holds only strings, only token ids or only lists of token ids", "prompt")


class _CompletionAnswer(Answer):
    """OpenAI's completion and its chunks. An echoed prompt precedes the text, and may be all there is."""

    prefix = "cmpl"
    whole_object = chunk_object = "text_completion"
    chunk_head = b',"text":'
    chunk_tail = b',"logprobs":null,"finish_reason":null,"stop_reason":null}]}\n\n'

    def __init__(self, pod: Pod, request: Request, body: CompletionRequest, model: str) -> None:
        self._token_ids = bool(body.return_token_ids)
        self._echo = bool(body.echo)
        self._no_text = body.max_tokens == 0
        self._begun: set[int] = set()
        super().__init__(pod, request, body, model)

    def shows_more(self) -> bool:
        return self._token_ids or self._echo

    def _text(self, choice: Choice, text: str, *, first: bool) -> str:
        echoed = self.pod.tokenizer.decode(choice.generation.request.prompt_token_ids) if first and self._echo else ""
        return echoed if self._no_text else echoed + text

    def whole_choice(self, choice: Choice) -> dict[str, Any]:
        return {
            "index": choice.index,
            "text": self._text(choice, choice.text, first=True),
            "logprobs": None,
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
            "token_ids": choice.token_ids if self._token_ids else None,
            "prompt_token_ids": choice.generation.request.prompt_token_ids if self._token_ids else None,
        }

    def chunk_choice(self, choice: Choice, text: str, tokens: list[int]) -> dict[str, Any]:
        first = choice.index not in self._begun
        self._begun.add(choice.index)
        shown: dict[str, Any] = {
            "index": choice.index,
            "text": self._text(choice, text, first=first),
            "logprobs": None,
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
        }
        if self._token_ids:
            shown["token_ids"] = tokens
            if first:
                shown["prompt_token_ids"] = choice.generation.request.prompt_token_ids
        return shown
