"""Turns token ids into the text of one choice: omits special tokens and finds stop strings."""

from collections.abc import Sequence

from kvsync_events.mocktext.tokenizer import SPECIALS
from kvsync_mockpod.pod import Generation
from kvsync_mockpod.text import Tokenizer

_FIRST_TEXT = len(SPECIALS)


class Choice:
    """The answer of one generation as it grows."""

    __slots__ = (
        "_held", "_holding", "_include", "_stops", "_tokenizer", "finish_reason", "generation", "index",
        "parts", "stop_reason", "token_ids",
    )  # fmt: skip

    def __init__(
        self, generation: Generation, tokenizer: Tokenizer, stops: Sequence[str], *, include_stop: bool
    ) -> None:
        self.generation = generation
        self.index = generation.index
        self.parts: list[str] = []
        self.token_ids: list[int] = []
        self.finish_reason: str | None = None
        self.stop_reason: str | int | None = None
        self._tokenizer = tokenizer
        self._stops = stops
        self._include = include_stop
        self._holding = max(map(len, stops)) - 1 if stops else 0
        self._held = ""

    def has_ended(self) -> bool:
        """Whether the answer is complete."""
        return self.finish_reason is not None

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.parts)

    def feed(self, tokens: list[int], *, final: bool) -> str:
        """Add tokens; returns the text that is now certain and sets `finish_reason` at the end."""
        if self.finish_reason is not None:
            return ""
        self.token_ids += tokens
        text_of = self._tokenizer.token_text
        if len(tokens) == 1 and tokens[0] >= _FIRST_TEXT:
            text = text_of(tokens[0])
        else:
            text = "".join([text_of(token) for token in tokens if token >= _FIRST_TEXT])
        if self._stops:
            text = self._hold(text, final=final)
        if final and self.finish_reason is None:
            self.finish_reason = self.generation.finish_reason
            self.stop_reason = self.generation.stop_token_id
        if text:
            self.parts.append(text)
        return text

    def _hold(self, text: str, *, final: bool) -> str:
        """Cut the text at the first stop string, and hold back what may be the beginning of one."""
        whole = self._held + text
        found = [(place, stop) for stop in self._stops if (place := whole.find(stop)) >= 0]
        if found:
            place, stop = min(found)
            self.finish_reason = "stop"
            self.stop_reason = stop
            self._held = ""
            return whole[: place + len(stop)] if self._include else whole[:place]
        if final or not self._holding:
            self._held = ""
            return whole
        self._held = whole[-self._holding :]
        return whole[: -self._holding]
