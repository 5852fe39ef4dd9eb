"""Asks engines to announce a prompt again that the index does not know to be cached.

The index may have joined after a prompt was stored, and hits emit no events. When an answer shows that an engine found
more in its cache than the index predicted, and the index says that it wants a report, the next request with the same
beginning to that engine carries `vllm_xargs: {"kv_cache_report_mode": "full"}`: vLLM 0.26 and newer then stores the
whole chain of the hit again. Nothing else of a request is changed.
"""

import hashlib
from collections import OrderedDict
from typing import Any, Final

import msgspec

from kvsync_router.decisions.requests import InferenceRequest

MOST: Final = 1024
"""Prompts that are remembered; the oldest is forgotten."""
_BEGINNING_TOKENS: Final = 16
_BEGINNING_CHARACTERS: Final = 64
_XARGS: Final = "vllm_xargs"
_ARGUMENT: Final = {"kv_cache_report_mode": "full"}


class ReportWishes:
    """The prompts of which the index knows too little, by publisher, and the publishers whose report it wants."""

    def __init__(self) -> None:
        self._prompts: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        self._granted: set[str] = set()
        self.added = 0
        """Requests that were sent with the argument."""

    def underestimated(self, publisher: str, request: InferenceRequest) -> None:
        """An engine found more of this prompt in its cache than the index predicted."""
        key = _beginning(request)
        if key is None:
            return
        self._prompts[publisher, key] = None
        self._prompts.move_to_end((publisher, key))
        if len(self._prompts) > MOST:
            self._prompts.popitem(last=False)

    def grant(self, publisher: str) -> None:
        """The index wants one report of this publisher."""
        if any(name == publisher for name, _ in self._prompts):
            self._granted.add(publisher)

    def body_for(self, publisher: str, request: InferenceRequest, body: bytes) -> bytes:
        """Return the body to send, with the argument if a report is wanted of this publisher for this prompt."""
        if publisher not in self._granted:
            return body
        key = _beginning(request)
        if key is None or (publisher, key) not in self._prompts:
            return body
        del self._prompts[publisher, key]
        self._granted.discard(publisher)
        changed = with_argument(body)
        self.added += changed is not body
        return changed


def with_argument(body: bytes) -> bytes:
    """Return the body with the argument, or the body itself if it cannot be added without changing what was asked."""
    try:
        fields: dict[str, msgspec.Raw] = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        given: Any = msgspec.json.decode(fields.get(_XARGS, b"null"))
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return body
    if given is None:
        given = {}
    if not isinstance(given, dict) or _ARGUMENT.keys() & given.keys():
        return body
    fields[_XARGS] = msgspec.Raw(msgspec.json.encode({**given, **_ARGUMENT}))
    return msgspec.json.encode(fields)


def _beginning(request: InferenceRequest) -> bytes | None:
    """What the prompts of one conversation or with one system prompt have in common."""
    prompt = request.prompt
    if prompt.token_ids is not None:
        begin: Any = list(prompt.token_ids[:_BEGINNING_TOKENS])
    elif prompt.text is not None:
        begin = prompt.text[:_BEGINNING_CHARACTERS]
    elif prompt.messages:
        begin = prompt.messages[0]
    else:
        return None
    salt = [request.model, request.cache_salt, begin]
    return hashlib.blake2b(msgspec.json.encode(salt), digest_size=16).digest()
