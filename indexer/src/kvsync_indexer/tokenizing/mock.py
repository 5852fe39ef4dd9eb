"""The tokenizer and the chat template of mock engines."""

from typing import Any

from kvsync_events import TextError
from kvsync_events.mocktext import Tokenizer, render_chat
from kvsync_indexer.errors import RequestError


class MockText:
    """Encodes what a mock engine's `/tokenize` would."""

    def __init__(self) -> None:
        self._tokenizer = Tokenizer()

    def encode(self, body: dict[str, Any]) -> list[int]:
        """The tokens of the body of a `/tokenize` request. Raises RequestError."""
        try:
            if body.get("prompt") is not None:
                return self._tokenizer.encode(body["prompt"])
            if body.get("chat_template") is not None:
                raise RequestError(422, "mock engines refuse a chat template in a request", field="chat_template")
            return render_chat(
                self._tokenizer,
                body["messages"],
                tools=body.get("tools") or (),
                arguments=body.get("chat_template_kwargs"),
                add_generation_prompt=body.get("add_generation_prompt", True),
                continue_final_message=body.get("continue_final_message", False),
            ).token_ids
        except (TextError, TypeError, AttributeError) as error:
            raise RequestError(422, f"the mock model refuses the text: {error}"[:300], field="messages") from None
