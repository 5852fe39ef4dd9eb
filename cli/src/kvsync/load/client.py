"""Replays prompts over HTTP at their arrival times, as streaming requests, and records one outcome per request.

When an answer breaks off (its engine died after the first byte, which a router cannot hide), the request is issued
again, and the outcome counts how often. A request that the server refuses (4xx) would be refused again, and is not
repeated. Times run from the first issue; cached tokens are those that the engine reports.
"""

import asyncio
import time
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import aiohttp
import msgspec

from kvsync.load.vocabulary import Vocabulary
from kvsync_workload.prompts import Prompt

if TYPE_CHECKING:
    Floats: TypeAlias = array[float]
else:
    Floats = array

MAX_IN_FLIGHT = 64
ISSUES = 6
"""How often a request is issued at most."""
RETRY_S = 0.25
ANSWER_TIMEOUT_S = 120.0
MAX_ERROR_BYTES = 16 * 1024
MAX_MESSAGE = 300


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one request ended. Times are seconds since the start of the replay."""

    number: int
    ok: bool
    sent_s: float
    ttft_s: float
    ended_s: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    issues: int
    endpoint: str
    matched_tokens: int | None
    """What the index said the endpoint holds of the prompt; None if nobody could tell."""
    policy: str
    error: str = ""
    status: int | None = None
    """HTTP status of the last answer if the request failed; None without an answer."""


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _Chunk(msgspec.Struct):
    usage: _Usage | None = None


class _Error(msgspec.Struct):
    message: str


class _Refusal(msgspec.Struct):
    error: _Error


@dataclass(frozen=True, slots=True)
class Pause:
    """Delays request number `before`, and all after it, until `over` is set; later arrivals are delayed as long."""

    before: int
    over: asyncio.Event


class AnswerBrokenError(Exception):
    """No answer came, only part of one, or one with a `status` other than 200."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status

    @property
    def final(self) -> bool:
        """Whether the server refuses the request as such, so that repeating it is useless."""
        return self.status is not None and 400 <= self.status < 500


class Replayer:
    """Sends prompts to one OpenAI endpoint."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        model: str,
        *,
        speed: float,
        max_in_flight: int = MAX_IN_FLIGHT,
        vocabulary: Vocabulary | None = None,
        on_outcome: Callable[[Outcome], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._url = f"{url.rstrip('/')}/v1/completions"
        self._model = model
        self._speed = speed
        self._slots = asyncio.Semaphore(max_in_flight)
        self._vocabulary = vocabulary
        self._on_outcome = on_outcome
        self._clock = clock
        self._start = 0.0
        self._chunks = msgspec.json.Decoder(_Chunk)
        self.gaps_s: Floats = array("d")
        """Times between successive chunks of one answer, of all answers."""

    async def run(self, prompts: Iterable[Prompt], pause: Pause | None = None) -> list[Outcome]:
        """Send every prompt at its time (arrival / speed), or later when a slot becomes free.

        Outcomes are in order of prompts.
        """
        self._start = self._clock()
        paused_s = 0.0
        async with asyncio.TaskGroup() as group:
            tasks: list[asyncio.Task[Outcome]] = []
            for number, prompt in enumerate(prompts):
                if pause is not None and number == pause.before:
                    begun = self._clock()
                    await pause.over.wait()
                    paused_s = self._clock() - begun
                wait_s = prompt.arrival_s / self._speed + paused_s - (self._clock() - self._start)
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                await self._slots.acquire()
                tasks.append(group.create_task(self._one(prompt)))
        return [task.result() for task in tasks]

    async def _one(self, prompt: Prompt) -> Outcome:
        try:
            outcome = await self._until_whole(prompt)
        finally:
            self._slots.release()
        if self._on_outcome is not None:
            self._on_outcome(outcome)
        return outcome

    def _body(self, prompt: Prompt) -> bytes:
        ids = prompt.token_ids.tolist()
        return msgspec.json.encode(
            {
                "model": self._model,
                "prompt": ids if self._vocabulary is None else self._vocabulary.fold(ids),
                "max_tokens": prompt.output_tokens,
                "ignore_eos": True,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        )

    async def _until_whole(self, prompt: Prompt) -> Outcome:
        body = self._body(prompt)
        sent = self._clock()
        error, status, issue = "", None, 0
        while issue < ISSUES:
            issue += 1
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    first, usage, headers = await self._issue(body)
            except AnswerBrokenError as broken:
                error, status = str(broken), broken.status
                if broken.final:
                    break
            except (aiohttp.ClientError, msgspec.MsgspecError, TimeoutError, OSError) as broken:
                error, status = f"{type(broken).__name__}: {broken}".removesuffix(": "), None
            else:
                return self._outcome(prompt, sent, first, usage, headers, issue)
            await asyncio.sleep(RETRY_S * issue)
        now = self._clock()
        return Outcome(
            prompt.number, False, sent - self._start, now - sent, now - self._start, len(prompt.token_ids), 0, 0,
            issue, "", 0, "", error, status,
        )  # fmt: skip

    def _outcome(
        self, prompt: Prompt, sent: float, first: float, usage: _Usage, headers: Mapping[str, str], issue: int
    ) -> Outcome:
        details = usage.prompt_tokens_details
        return Outcome(
            number=prompt.number,
            ok=True,
            sent_s=sent - self._start,
            ttft_s=first - sent,
            ended_s=self._clock() - self._start,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=(details.cached_tokens or 0) if details is not None else 0,
            output_tokens=usage.completion_tokens,
            issues=issue,
            endpoint=headers.get("x-kvsync-endpoint", ""),
            matched_tokens=_tokens(headers.get("x-kvsync-matched-tokens", "0")),
            policy=headers.get("x-kvsync-policy", ""),
        )

    async def _issue(self, body: bytes) -> tuple[float, _Usage, Mapping[str, str]]:
        """Issue the request once and return the time of the first token, the usage and the response headers.

        Raises AnswerBrokenError if the answer is not complete.
        """
        async with self._session.post(self._url, data=body, headers={"content-type": "application/json"}) as response:
            if response.status != 200:
                body_start = await response.content.read(MAX_ERROR_BYTES)
                raise AnswerBrokenError(_message(body_start), response.status)
            first: float | None = None
            latest = 0.0
            usage: _Usage | None = None
            done = False
            async for line in response.content:
                if not line.startswith(b"data: "):
                    continue
                data = line[6:].strip()
                if data == b"[DONE]":
                    done = True
                elif b'"usage":{' in data:
                    usage = self._chunks.decode(data).usage
                else:
                    now = self._clock()
                    if first is None:
                        first = now
                    else:
                        self.gaps_s.append(now - latest)
                    latest = now
            if first is None or usage is None or not done:
                raise AnswerBrokenError("the answer broke off")
            return first, usage, response.headers


def _tokens(header: str) -> int | None:
    return int(header) if header.isdecimal() else None


def _message(body: bytes) -> str:
    """The message of an OpenAI error, or the text of any other answer, as one bounded line."""
    try:
        text = msgspec.json.decode(body, type=_Refusal).error.message
    except msgspec.MsgspecError:
        text = body.decode("utf-8", "replace")
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:MAX_MESSAGE] or "no message"
