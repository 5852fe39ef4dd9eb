"""Turns the fields of a request into generations, and ends them whatever happens to the client."""

import asyncio
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from kvsync_mockpod.engine import (
    DrainingError,
    DuplicateRequestError,
    LoraRef,
    MMFeature,
    PromptEmptyError,
    PromptTooLongError,
    QueueFullError,
    RequestRefusedError,
)
from kvsync_mockpod.http.asgi import ClientDisconnectedError, Request
from kvsync_mockpod.http.errors import HttpError, bad_request, not_found, too_busy, unavailable
from kvsync_mockpod.logs import get_logger
from kvsync_mockpod.pod import Generation, LiveRequest, Mailbox, Pod, Rank
from kvsync_mockpod.text import Answer

_log = get_logger(__name__)
_NEVER = 2**62
MAX_GENERATIONS = 256
"""Maximum number of prompts times `n` in one HTTP request."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """The parameters of a generation, apart from its prompt."""

    max_tokens: int
    n: int = 1
    seed: int | None = None
    stops: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop: bool = False
    ignore_eos: bool = False
    min_tokens: int = 0
    priority: int = 0
    cache_salt: str | None = None
    session_id: str | None = None
    lora: LoraRef | None = None
    opening: bool = False
    media: tuple[MMFeature, ...] = ()
    skip_cache: bool = False
    report_full: bool = False


def request_id(request: Request, prefix: str, given: str | None = None) -> str:
    """`prefix-` followed by the client's id (from a field or X-Request-Id) or a random one."""
    chosen = given or request.header(b"x-request-id")
    return f"{prefix}-{chosen[:256]}" if chosen else f"{prefix}-{os.urandom(16).hex()}"


def check_ready(pod: Pod) -> None:
    """Raises `HttpError` 503 while the pod drains or if an engine has stopped."""
    if pod.state.draining:
        raise unavailable("the server is shutting down")
    if not pod.healthy:
        raise unavailable("the engine has stopped after an internal error")


def pick_model(pod: Pod, name: str | None) -> tuple[str, LoraRef | None]:
    """The model name to report and its adapter. Raises `HttpError` 404."""
    try:
        adapter = pod.find_model(name)
    except KeyError:
        shown = (name or "")[:200]
        raise not_found(f"The model `{shown}` does not exist.", "model") from None
    return name or pod.config.names[0], adapter


def pick_rank(pod: Pod, request: Request) -> Rank:
    """The rank named by `X-data-parallel-rank`, or the least loaded one.

    As in vLLM, a header that is not a number is ignored. Raises `HttpError` 400 for a rank that is not in this pod.
    """
    try:
        named = int(request.header(b"x-data-parallel-rank") or "")
    except ValueError:
        return pod.choose_rank(None)
    try:
        return pod.choose_rank(named)
    except KeyError:
        plan = pod.config.rank_plan
        if 0 <= named < plan.named:
            message = f"data_parallel_rank {named} runs in another pod; this one has ranks 0 to {plan.count - 1}."
        else:
            message = f"data_parallel_rank {str(named)[:40]} is out of range [0, {plan.named})."
        raise bad_request(message, "X-data-parallel-rank") from None


def check_cache_salt(salt: str | None) -> None:
    """Raises `HttpError` 400 for a salt that vLLM refuses.

    It refuses an empty salt, one of more than 128 characters, and one with an at sign, slash, backslash or NUL.
    """
    if salt is None:
        return
    if not 1 <= len(salt) <= 128 or any(character in salt for character in "@/\\\0"):
        raise bad_request("cache_salt: 1 to 128 characters without @, /, \\ and NUL are allowed", "cache_salt")


def sampling_stops(stop: str | list[str] | None) -> tuple[str, ...]:
    """The stop strings of a request. Raises `HttpError` 400 for an empty one."""
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if "" in stops:
        raise bad_request("stop: an empty stop string is not allowed", "stop")
    return stops


def report_full(xargs: dict[str, Any] | None) -> bool:
    """Whether `kv_cache_report_mode` asks for the whole chain of hit blocks."""
    return xargs is not None and xargs.get("kv_cache_report_mode") == "full"


class Session:
    """The generations of one HTTP request. Leaving the `async with` block aborts those that have not ended."""

    def __init__(self, pod: Pod, request: Request, rank: Rank, *, final_only: bool) -> None:
        self.pod = pod
        self.request = request
        self.rank = rank
        self.mailbox = Mailbox(final_only=final_only and not request.slow_s)
        self.generations: list[Generation] = []
        self.disconnected = False
        self.sending_since_s: float | None = None
        """Start of the write to the client that is waiting, None if no write waits."""
        self._watch: asyncio.Task[None] | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._slow: deque[tuple[Generation, list[int], bool]] = deque()

    def submit(self, base_id: str, prompts: Sequence[list[int]], sampling: Sampling) -> None:
        """Queue n generations per prompt.

        Raises `HttpError`, after which no generation of this request is left in an engine.
        """
        pod, rank = self.pod, self.rank
        check_cache_salt(sampling.cache_salt)
        if len(prompts) * sampling.n > MAX_GENERATIONS:
            raise bad_request(
                f"{len(prompts)} prompts times n={sampling.n} is more than {MAX_GENERATIONS} generations", "n"
            )
        limit = pod.config.max_model_len
        single = len(prompts) * sampling.n == 1
        rank.metrics.params_n.observe(sampling.n)
        try:
            for place, prompt in enumerate(prompts):
                if len(prompt) >= limit:
                    raise _too_long(limit, len(prompt))
                budget = max(1, min(sampling.max_tokens, limit - len(prompt)))
                for choice in range(sampling.n):
                    index = place * sampling.n + choice
                    live = self._live(base_id if single else f"{base_id}-{index}", prompt, budget, choice, sampling)
                    self.generations.append(rank.submit(live, index, self.mailbox))
        except RequestRefusedError as error:
            self.abort()
            raise _refusal(error) from None
        except HttpError:
            self.abort()
            raise
        self._watch = asyncio.get_running_loop().create_task(self._watch_client())

    def _live(self, name: str, prompt: list[int], budget: int, choice: int, sampling: Sampling) -> LiveRequest:
        answer = self.pod.model.answer(
            prompt, sampling.seed, choice, opening=sampling.opening, min_tokens=sampling.min_tokens
        )
        if sampling.ignore_eos:
            answer = Answer(answer.seed, _NEVER, answer.opening)
        return LiveRequest(
            name,
            prompt,
            budget,
            priority=sampling.priority,
            cache_salt=sampling.cache_salt,
            lora=sampling.lora,
            mm_features=sampling.media,
            ignore_eos=sampling.ignore_eos,
            stop_token_ids=sampling.stop_token_ids,
            skip_cache=sampling.skip_cache,
            report_full=sampling.report_full,
            session_id=sampling.session_id,
            answer=answer,
        )

    async def _watch_client(self) -> None:
        """Abort all generations when the client disconnects; as the body has been read, the next message says so."""
        while (await self.request.receive())["type"] != "http.disconnect":
            pass
        self.disconnected = True
        self.abort()
        self.mailbox.wake()

    async def take(self) -> list[tuple[Generation, list[int], bool]]:
        """The next tokens of any generation. Raises `ClientDisconnectedError`."""
        if self.request.slow_s:
            return await self._take_slowly()
        items = await self.mailbox.take()
        if self.disconnected:
            raise ClientDisconnectedError
        return items

    async def _take_slowly(self) -> list[tuple[Generation, list[int], bool]]:
        """Return one token at a time, each after the delay that the fault plan demands."""
        if not self._slow:
            self._slow.extend(await self.mailbox.take())
        await asyncio.sleep(self.request.slow_s)
        if self.disconnected:
            raise ClientDisconnectedError
        return [self._slow.popleft()]

    def guard_writes(self) -> None:
        """Disconnect the client when a write has waited for `mock_stall_timeout` seconds."""
        timeout = self.pod.config.mock_stall_timeout
        self._stall = asyncio.get_running_loop().call_later(timeout / 2, self._check_stall)

    def _check_stall(self) -> None:
        since, timeout = self.sending_since_s, self.pod.config.mock_stall_timeout
        if since is None or self.pod.clock_s() - since < timeout:
            self.guard_writes()
            return
        _log.warning("stalled_client_disconnected", seconds=timeout)
        self.request.cut_off()

    def abort(self) -> None:
        """End every generation that has not ended."""
        for generation in self.generations:
            if generation.finish_reason is None:
                self.rank.abort(generation)

    async def __aenter__(self) -> "Session":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watch is not None:
            self._watch.cancel()
        if self._stall is not None:
            self._stall.cancel()
        self.abort()


def _too_long(limit: int, size: int) -> HttpError:
    return bad_request(
        f"This model's maximum context length is {limit} tokens. However, the prompt has {size} tokens, which leaves "
        "no room for an answer.",
        "prompt",
    )


def _refusal(error: RequestRefusedError) -> HttpError:
    if isinstance(error, QueueFullError):
        return too_busy(str(error))
    if isinstance(error, DrainingError):
        return unavailable(str(error))
    if isinstance(error, DuplicateRequestError):
        return bad_request(str(error), "request_id")
    if isinstance(error, PromptEmptyError | PromptTooLongError):
        return bad_request(str(error), "prompt")
    return bad_request(str(error))
