"""Reading the JSON body of a request, and the JSON of an error: one form for every path."""

import difflib
from typing import TypeVar

import msgspec

from kvsync_indexer.api import ErrorAnswer, ErrorDetail
from kvsync_indexer.errors import RequestError

Request = TypeVar("Request", bound=msgspec.Struct)
_UNKNOWN_FIELD = "unknown field `"


def decode_request(body: bytes, kind: type[Request]) -> Request:
    """The request in `body`. Raises RequestError with status 422."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise RequestError(422, _problem(error, kind)) from None
    except UnicodeDecodeError:
        raise RequestError(422, "the body is not UTF-8 JSON") from None
    except RecursionError:
        raise RequestError(422, "the body is nested too deeply") from None


def _problem(error: msgspec.MsgspecError, kind: type[msgspec.Struct]) -> str:
    """The error as one line; an unknown field gets the nearest valid name."""
    text = str(error)
    if _UNKNOWN_FIELD not in text:
        return text
    field = text.split(_UNKNOWN_FIELD, 1)[1].split("`", 1)[0]
    names = kind.__struct_fields__
    near = difflib.get_close_matches(field, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(names)}"
    return f"unknown field {field!r} ({hint})"


def error_body(message: str, field: str | None = None) -> bytes:
    """The JSON of an error."""
    return msgspec.json.encode(ErrorAnswer(ErrorDetail(message, field)))
