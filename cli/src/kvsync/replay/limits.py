"""What a server accepts: its model, the longest sequence and the vocabulary; and requests cut to that length.

The length is `max_model_len` of `/v1/models`. No endpoint of a production server tells the vocabulary. It is therefore
measured: the server is asked to complete one-token prompts, and the limit between accepted and refused ids is halved
in. A server that accepts the highest id of any trace needs one such request.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import msgspec

from kvsync.errors import UnreachableError
from kvsync_indexer.client.describing import describe
from kvsync_workload.prompts import Scale
from kvsync_workload.trace import TraceRequest

HIGHEST_ID = (1 << 24) - 1
"""No trace leads to a higher token id."""
ANSWER_S = 30.0
MAX_ANSWER_BYTES = 4 * 1024 * 1024


class _Model(msgspec.Struct):
    id: str
    max_model_len: int | None = None


class _Models(msgspec.Struct):
    data: list[_Model]


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """The limits of one model on one server; None where there is none or it is unknown."""

    model: str
    max_model_len: int | None = None
    vocabulary: int | None = None

    def describe(self) -> dict[str, Any]:
        """The limits as JSON values for the report."""
        return {"model": self.model, "max_model_len": self.max_model_len, "vocabulary": self.vocabulary}


async def find_limits(
    session: aiohttp.ClientSession, url: str, model: str | None = None, vocabulary: int | None = None
) -> ServerLimits:
    """Ask the server for the model (by default the first that it lists), its length, and measure its vocabulary.

    Raises UnreachableError if the server gives no usable answer.
    """
    found = await _find(session, url, model)
    name = found.id if found is not None else str(model)
    if vocabulary is None:
        vocabulary = await _measure(session, url, name)
    length = found.max_model_len if found is not None else None
    return ServerLimits(name, length if length is not None and length > 1 else None, vocabulary)


async def find_model(session: aiohttp.ClientSession, url: str) -> str:
    """The first model that the server lists. Raises UnreachableError if the server gives no usable answer."""
    found = await _find(session, url, None)
    assert found is not None
    return found.id


async def _find(session: aiohttp.ClientSession, url: str, model: str | None) -> _Model | None:
    """The model of this name, None if it is not listed, or the first one."""
    models = await _models(session, url)
    if not models and model is None:
        raise UnreachableError(f"{url}: serves no model")
    return next((each for each in models if model in (None, each.id)), None)


async def _models(session: aiohttp.ClientSession, url: str) -> list[_Model]:
    try:
        async with session.get(f"{url}/v1/models", timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as response:
            body = await response.content.read(MAX_ANSWER_BYTES)
            if response.status != 200:
                raise UnreachableError(f"{url}/v1/models: status {response.status}")
        return msgspec.json.decode(body, type=_Models).data
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise UnreachableError(f"{url}: {describe(error)}") from None
    except msgspec.MsgspecError as error:
        raise UnreachableError(f"{url}/v1/models: not the answer of an OpenAI server: {error}") from None


async def _measure(session: aiohttp.ClientSession, url: str, model: str) -> int | None:
    """The number of ids that the server accepts. None if it accepts all, or refuses for another reason."""
    if await _accepts(session, url, model, HIGHEST_ID) is not False:
        return None
    if not await _accepts(session, url, model, 1):
        return None
    accepted, refused = 1, HIGHEST_ID
    while refused - accepted > 1:
        middle = (accepted + refused) // 2
        answer = await _accepts(session, url, model, middle)
        if answer is None:
            return None
        accepted, refused = (middle, refused) if answer else (accepted, middle)
    return accepted + 1


async def _accepts(session: aiohttp.ClientSession, url: str, model: str, token_id: int) -> bool | None:
    """Whether the server completes a prompt of this one token; None for an answer that does not tell.

    Raises UnreachableError if there is no answer.
    """
    body = {"model": model, "prompt": [token_id], "max_tokens": 1}
    try:
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        async with session.post(f"{url}/v1/completions", json=body, timeout=timeout) as response:
            return {200: True, 400: False, 422: False}.get(response.status)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise UnreachableError(f"{url}/v1/completions: {describe(error)}") from None


def fit_requests(
    requests: Sequence[TraceRequest], scale: int, max_model_len: int | None
) -> tuple[Sequence[TraceRequest], int]:
    """The requests, cut so that prompt and answer fit into `max_model_len` after scaling, and how many were cut.

    The answer keeps up to half of the length, and the end of the prompt is cut off.
    """
    if max_model_len is None:
        return requests, 0
    fitted = [_fit(request, Scale(scale), max_model_len) for request in requests]
    return fitted, sum(new is not old for new, old in zip(fitted, requests, strict=True))


def _fit(request: TraceRequest, scale: Scale, limit: int) -> TraceRequest:
    prompt, output = scale.length(request.input_tokens), scale.length(request.output_tokens)
    if prompt + output <= limit:
        return request
    output = min(output, max(limit // 2, 1))
    prompt = min(prompt, max(limit - output, 1))
    blocks = request.hash_ids[: -(-prompt // scale.block_tokens)]
    return replace(request, input_tokens=prompt * scale.divisor, output_tokens=output * scale.divisor, hash_ids=blocks)
