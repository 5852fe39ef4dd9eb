"""The paths of an engine that clients may use through the router, and which of them have a prompt to look up.

This is a list of what is allowed, so that nothing that administers or inspects an engine (`/debug`, `/sleep`,
`/reset_prefix_cache`, `/v1/load_lora_adapter`, `/metrics`) can be reached through a router. The paths are those of
vLLM 0.10 to 0.33.
"""

import re
from typing import Final, Literal, TypeAlias

Api: TypeAlias = Literal["completion", "chat", "responses", "messages", "other"]
"""The form of a request: which fields hold its prompt."""

CHAT_PATH: Final = "/v1/chat/completions"
RESPONSES_PATH: Final = "/v1/responses"
PROMPT_PATHS: Final[dict[str, Api]] = {
    "/v1/completions": "completion",
    CHAT_PATH: "chat",
    RESPONSES_PATH: "responses",
    "/v1/messages": "messages",
}
"""Paths whose requests make an engine generate text from a prompt."""
OTHER_PATHS: Final = frozenset(
    (
        "/v1/embeddings",
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
        "/v1/audio/speech",
        "/v1/messages/count_tokens",
        "/v1/completions/render",
        "/v1/chat/completions/render",
        "/v1/score",
        "/v1/rerank",
        "/v2/rerank",
        "/inference/v1/generate",
        "/classify",
        "/detokenize",
        "/pooling",
        "/rerank",
        "/score",
        "/tokenize",
    )
)
"""Paths whose requests go to any engine that serves the model."""
_STORED: Final = re.compile(r"/v1/responses/([A-Za-z0-9_-]{1,128})(?:/cancel|/input_items)?")


def api_of(path: str) -> Api | None:
    """The form of a POST request to `path`; None if the router does not serve it."""
    api = PROMPT_PATHS.get(path)
    if api is None and (path in OTHER_PATHS or stored_response(path) is not None):
        return "other"
    return api


def stored_response(path: str) -> str | None:
    """The id of the stored response that `path` names, if it does."""
    named = _STORED.fullmatch(path)
    return None if named is None else named[1]
