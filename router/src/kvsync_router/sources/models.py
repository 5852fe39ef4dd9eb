"""The list of models in an engine's answer to `/v1/models`, which the router reads and passes on merged."""

from typing import Any, Final

import aiohttp
import msgspec

from kvsync_router.errors import ModelsUnreadableError

MAX_LIST_BYTES: Final = 1 << 20


class ListedModel(msgspec.Struct):
    """One model of an engine."""

    id: str
    parent: str | None = None
    """The base model of an adapter, as the engine calls it."""
    max_model_len: int | None = None
    whole: dict[str, Any] = {}
    """Everything that the engine says about it."""


class _Answer(msgspec.Struct):
    data: list[dict[str, Any]]


async def read_list(content: aiohttp.StreamReader) -> bytes:
    """The body of an answer, up to a little more than may be read."""
    parts: list[bytes] = []
    size = 0
    async for part in content.iter_any():
        parts.append(part)
        size += len(part)
        if size > MAX_LIST_BYTES:
            break
    return b"".join(parts)


def models_in(body: bytes) -> list[ListedModel]:
    """The models in the body of an answer. Raises ModelsUnreadableError."""
    if len(body) > MAX_LIST_BYTES:
        raise ModelsUnreadableError(f"a list of more than {MAX_LIST_BYTES} bytes")
    try:
        answer = msgspec.json.decode(body, type=_Answer)
        return [msgspec.convert({**each, "whole": each}, ListedModel) for each in answer.data]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ModelsUnreadableError(str(error)[:200]) from None
