"""`POST /tokenize` and `/detokenize`: the pod's tokenizer, for routers and indexes that have only text."""

from typing import Any

import msgspec

from kvsync_events import TextError
from kvsync_mockpod.http.asgi import Request, Response, json_response
from kvsync_mockpod.http.chat import render
from kvsync_mockpod.http.errors import bad_request
from kvsync_mockpod.http.schemas import DetokenizeRequest, TokenizeRequest
from kvsync_mockpod.http.session import pick_model
from kvsync_mockpod.pod import Pod

_tokenize_decoder = msgspec.json.Decoder(TokenizeRequest, strict=False)
_detokenize_decoder = msgspec.json.Decoder(DetokenizeRequest, strict=False)


async def tokenize(pod: Pod, request: Request) -> Response:
    """The token ids of a prompt or a conversation. Raises `HttpError`."""
    body = await request.decode(_tokenize_decoder)
    pick_model(pod, body.model)
    if (body.prompt is None) == (body.messages is None):
        raise bad_request("exactly one of prompt and messages must be given", "prompt")
    if body.messages is not None:
        tokens = render(pod, body, body.messages, body.chat_template_kwargs or {}).token_ids
    else:
        try:
            tokens = pod.tokenizer.encode(body.prompt or "")
        except TextError as error:
            raise bad_request(str(error), "prompt") from None
    answer: dict[str, Any] = {
        "count": len(tokens),
        "max_model_len": pod.config.max_model_len,
        "tokens": tokens,
        "token_strs": pod.tokenizer.token_strings(tokens) if body.return_token_strs else None,
    }
    return json_response(answer)


async def detokenize(pod: Pod, request: Request) -> Response:
    """The text of token ids. Raises `HttpError`."""
    body = await request.decode(_detokenize_decoder)
    pick_model(pod, body.model)
    return json_response({"prompt": pod.tokenizer.decode(body.tokens)})
