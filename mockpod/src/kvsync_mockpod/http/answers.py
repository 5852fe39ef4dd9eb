"""Common parts of completions and chat completions: sampling parameters, and OpenAI's answer as a whole or in chunks.

Each API adds the form of its choices. The usual chunk of a stream consists of constant bytes around the text, prepared
once per stream; an object is built only if the request asks for more than text.
"""

import time
from abc import abstractmethod
from typing import Any, ClassVar

from kvsync_mockpod.engine import LoraRef
from kvsync_mockpod.http.asgi import Request, Response, json_response
from kvsync_mockpod.http.choices import Choice
from kvsync_mockpod.http.errors import bad_request
from kvsync_mockpod.http.schemas import ChatRequest, CompletionRequest, SamplingFields
from kvsync_mockpod.http.session import Sampling, Session, pick_rank, report_full, request_id, sampling_stops
from kvsync_mockpod.http.streaming import Framing, Usage, encode, make_choices, run_to_end, stream
from kvsync_mockpod.pod import Pod

_END = b"data: [DONE]\n\n"


def read_sampling(
    pod: Pod, request: Request, body: SamplingFields, max_tokens: int | None, lora: LoraRef | None
) -> Sampling:
    """The sampling parameters of a body. Without `max_tokens` an answer may use all the room that the model has."""
    return Sampling(
        max_tokens=pod.config.max_model_len if max_tokens is None else max_tokens,
        n=body.n or 1,
        seed=body.seed,
        stops=sampling_stops(body.stop),
        stop_token_ids=tuple(body.stop_token_ids or ()),
        include_stop=body.include_stop_str_in_output,
        ignore_eos=body.ignore_eos,
        min_tokens=body.min_tokens,
        priority=body.priority,
        cache_salt=body.cache_salt,
        session_id=body.session_id or request.header(b"x-session-id"),
        lora=lora,
        skip_cache=body.prompt_logprobs is not None or echoes_logprobs(body),
        report_full=report_full(body.vllm_xargs),
    )


def echoes_logprobs(body: SamplingFields) -> bool:
    """Whether the prompt is echoed with log probabilities. In a chat, `top_logprobs` is 0 and not absent by default."""
    if isinstance(body, ChatRequest):
        return body.echo
    return isinstance(body, CompletionRequest) and bool(body.echo) and body.logprobs is not None


def truncate(pod: Pod, body: SamplingFields, max_tokens: int | None, tokens: list[int]) -> list[int]:
    """The prompt that `truncate_prompt_tokens` leaves: its end, unless `truncation_side` is `right`.

    Raises `HttpError` 400 for more tokens than the model's length.
    """
    limit = body.truncate_prompt_tokens
    if limit is None:
        return tokens
    longest = pod.config.max_model_len
    if limit > longest:
        raise bad_request(
            f"truncate_prompt_tokens={limit} cannot be greater than max_model_len = {longest}",
            "truncate_prompt_tokens",
        )
    if limit < 0:
        limit = longest - (1 if max_tokens else 0)
    return tokens[:limit] if body.truncation_side == "right" else tokens[max(len(tokens) - limit, 0) :]


def refuse_no_tokens(max_tokens: int | None) -> None:
    """Raises `HttpError` 400 for an answer without tokens."""
    if max_tokens == 0:
        raise bad_request("max_tokens must be at least 1, got 0", "max_tokens")


def _names_tokens(prompt: object) -> bool:
    """Whether a prompt consists of token ids, so that it did not pass the tokenizer."""
    return isinstance(prompt, list) and not isinstance(prompt[0], str)


def check_vocabulary(prompts: list[list[int]], vocab_size: int) -> None:
    """Raises `HttpError` 400, with vLLM's message, for prompts of token ids that are outside the vocabulary."""
    largest = max((max(prompt, default=0) for prompt in prompts), default=0)
    if largest >= vocab_size:
        raise bad_request(f"Token id {largest} is out of vocabulary")


class Answer(Framing):
    """The answer to one request."""

    prefix: ClassVar[str]
    """Prefix of the answer's id."""
    whole_object: ClassVar[str]
    chunk_object: ClassVar[str]
    chunk_head: ClassVar[bytes]
    """The bytes between index and text in a choice of the usual chunk."""
    chunk_tail: ClassVar[bytes]

    def __init__(self, pod: Pod, request: Request, body: SamplingFields, model: str) -> None:
        options = body.stream_options
        self.pod = pod
        self.id = request_id(request, self.prefix, body.request_id)
        self.choices: dict[int, Choice] = {}
        self._n = body.n or 1
        self._model = model
        self._created = int(time.time())
        self._usage = options is not None and options.include_usage
        self._continuous = options is not None and options.continuous_usage_stats
        self._plain = not (self._continuous or self.shows_more())
        self._heads: dict[int, bytes] = {}

    @abstractmethod
    def shows_more(self) -> bool:
        """Whether chunks carry more than text."""

    @abstractmethod
    def whole_choice(self, choice: Choice) -> dict[str, Any]:
        """A choice of the whole answer."""

    @abstractmethod
    def chunk_choice(self, choice: Choice, text: str, tokens: list[int]) -> dict[str, Any]:
        """A choice of a chunk."""

    def whole_fields(self) -> dict[str, Any]:
        """The fields that follow the usage in the whole answer."""
        return {"kv_transfer_params": None}

    def open(self, choices: dict[int, Choice]) -> None:
        """Called when the generations have started."""
        self.choices = choices
        head = b"data: " + encode(self.base(self.chunk_object))[:-1] + b',"choices":[{"index":'
        self._heads = {index: head + b"%d" % index + self.chunk_head for index in choices}

    def base(self, kind: str) -> dict[str, Any]:
        """The fields that every document begins with."""
        return {"id": self.id, "object": kind, "created": self._created, "model": self._model}

    def whole(self) -> dict[str, Any]:
        """The answer to a request that does not stream."""
        return {
            **self.base(self.whole_object),
            "choices": [self.whole_choice(choice) for choice in self.choices.values()],
            "usage": self._usage_now(),
            **self.whole_fields(),
        }

    def begin(self) -> bytes:
        """Empty, unless the API begins a stream with an opening."""
        return b""

    def delta(self, choice: Choice, text: str, tokens: list[int]) -> bytes:
        """Further text of a choice."""
        if self._plain:
            return self._heads[choice.index] + encode(text) + self.chunk_tail
        return self._chunk(choice, text, tokens)

    def end(self, choice: Choice, text: str, tokens: list[int]) -> bytes:
        """The last text of a choice."""
        return self._chunk(choice, text, tokens)

    def finish(self) -> bytes:
        """The usage, if the request asks for it, and the end mark of the stream."""
        if not self._usage:
            return _END
        return self.event(choices=[], usage=self._usage_now()) + _END

    def event(self, **fields: object) -> bytes:
        """One chunk with these fields."""
        return b"data: " + encode({**self.base(self.chunk_object), **fields}) + b"\n\n"

    def _chunk(self, choice: Choice, text: str, tokens: list[int]) -> bytes:
        fields: dict[str, Any] = {"choices": [self.chunk_choice(choice, text, tokens)]}
        if self._continuous:
            fields["usage"] = self._usage_now()
        return self.event(**fields)

    def _usage_now(self) -> dict[str, Any]:
        details = self.pod.config.enable_prompt_tokens_details
        return Usage(list(self.choices.values()), self._n, details=details).as_openai()


async def serve(
    request: Request, body: SamplingFields, prompts: list[list[int]], sampling: Sampling, answer: Answer
) -> Response | None:
    """Generate and answer; returns None after a stream was sent. Raises `HttpError`, `ClientDisconnectedError`."""
    pod = answer.pod
    if _names_tokens(getattr(body, "prompt", None)):
        check_vocabulary(prompts, pod.config.mock_vocab_size)
    final_only = not body.stream and not sampling.stops
    async with Session(pod, request, pick_rank(pod, request), final_only=final_only) as session:
        session.submit(answer.id, prompts, sampling)
        choices = make_choices(session, sampling.stops, include_stop=sampling.include_stop)
        answer.open(choices)
        if body.stream:
            await stream(request, session, choices, answer)
            return None
        await run_to_end(session, choices)
        return json_response(answer.whole())
