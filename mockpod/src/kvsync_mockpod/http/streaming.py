"""Answers as server-sent events: one loop for all APIs, one framing class for each.

The head of the response is sent with the first tokens, so that an earlier failure is still a plain error. A token is
one event; the events of one wake-up are sent in one write. A client that stops reading is disconnected after a while.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import msgspec

from kvsync_mockpod.http.asgi import Request
from kvsync_mockpod.http.choices import Choice
from kvsync_mockpod.http.errors import HttpError
from kvsync_mockpod.http.session import Session

encode = msgspec.json.Encoder().encode
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Usage:
    """Token counts of a whole answer."""

    __slots__ = ("cached", "completion", "details", "prompt")

    def __init__(self, choices: Sequence[Choice], n: int, *, details: bool) -> None:
        first = choices[::n] if n else choices
        self.prompt = sum(choice.generation.prompt_tokens for choice in first)
        self.completion = sum(len(choice.token_ids) for choice in choices)
        self.cached = sum(choice.generation.cached_tokens for choice in first)
        self.details = details

    def as_openai(self) -> dict[str, Any]:
        """OpenAI's `usage`, with vLLM's details if they are enabled."""
        usage: dict[str, Any] = {
            "prompt_tokens": self.prompt,
            "total_tokens": self.prompt + self.completion,
            "completion_tokens": self.completion,
        }
        usage["prompt_tokens_details"] = {"cached_tokens": self.cached} if self.details else None
        return usage


class Framing(ABC):
    """The form in which one API writes its stream."""

    @abstractmethod
    def begin(self) -> bytes:
        """The bytes before the first token."""

    @abstractmethod
    def delta(self, choice: Choice, text: str, tokens: list[int]) -> bytes:
        """Further text of a choice."""

    @abstractmethod
    def end(self, choice: Choice, text: str, tokens: list[int]) -> bytes:
        """The last text of a choice; `choice.finish_reason` is set."""

    @abstractmethod
    def finish(self) -> bytes:
        """The bytes after the last choice."""

    def error(self, error: HttpError) -> bytes:
        """An error in the middle of the stream."""
        return b"data: " + encode(error.payload()) + b"\n\ndata: [DONE]\n\n"


def make_choices(session: Session, stops: Sequence[str], *, include_stop: bool) -> dict[int, Choice]:
    """One choice per generation, by index."""
    tokenizer = session.pod.tokenizer
    return {
        generation.index: Choice(generation, tokenizer, stops, include_stop=include_stop)
        for generation in session.generations
    }


def finish_error(choice: Choice) -> HttpError | None:
    """The error that a choice ended with, or None."""
    if choice.finish_reason == "error":
        return HttpError(500, choice.generation.error or "the request failed in the engine")
    return None


def _close_stopped(session: Session, choice: Choice) -> None:
    """Abort a generation whose choice ended with a stop string."""
    if choice.generation.finish_reason is None:
        session.rank.abort(choice.generation, "stop")


async def run_to_end(session: Session, choices: dict[int, Choice]) -> None:
    """Take tokens until every choice has ended. Raises `HttpError` if one failed, `ClientDisconnectedError`."""
    left = len(choices)
    while left:
        for generation, tokens, final in await session.take():
            choice = choices[generation.index]
            if choice.has_ended():
                continue
            choice.feed(tokens, final=final)
            if choice.has_ended():
                left -= 1
                _close_stopped(session, choice)
                failed = finish_error(choice)
                if failed is not None:
                    raise failed


async def stream(request: Request, session: Session, choices: dict[int, Choice], framing: Framing) -> None:
    """Send the whole answer as events. Raises `HttpError` only before anything was sent."""
    send = request.send
    session.guard_writes()
    left = len(choices)
    started = False
    opening = framing.begin()
    while left:
        parts: list[bytes] = []
        for generation, tokens, final in await session.take():
            choice = choices[generation.index]
            if choice.has_ended():
                continue
            text = choice.feed(tokens, final=final)
            if not choice.has_ended():
                if text or tokens:
                    parts.append(framing.delta(choice, text, tokens))
                continue
            left -= 1
            _close_stopped(session, choice)
            failed = finish_error(choice)
            if failed is not None:
                if not started:
                    raise failed
                parts.append(framing.error(failed))
                left = 0
                break
            parts.append(framing.end(choice, text, tokens))
        else:
            if not left:
                parts.append(framing.finish())
        if not parts:
            continue
        if not started:
            started = True
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            parts.insert(0, opening)
        session.sending_since_s = session.pod.clock_s()
        await send({"type": "http.response.body", "body": b"".join(parts), "more_body": left > 0})
        session.sending_since_s = None
