"""The tokenizers of an index: which one a model has, and those that run in this process."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from kvsync_indexer.errors import ConfigError, RequestError, TokenizeError
from kvsync_indexer.ingest import PublisherLink
from kvsync_indexer.tokenizer_choice import REMOTE, TokenizerChoice
from kvsync_indexer.tokenizing.local import LocalTokenizer, TextEncoder
from kvsync_indexer.tokenizing.mock import MockText
from kvsync_indexer.tokenizing.remote import RemoteTokenizer
from kvsync_indexer.tokenizing.tokenized import Tokenized

RETRY_S: Final = 30.0
"""Pause after files could not be loaded."""

_log = structlog.get_logger("kvsync_indexer.tokenizing")


@dataclass(slots=True)
class _Loading:
    """Files that are being loaded, or could not be loaded."""

    task: "asyncio.Task[None] | None" = None
    problem: str = "is being loaded"
    again_at: float = field(default=0.0)


class Tokenizers:
    """Chooses a tokenizer per model and asks it. Use it in one event loop, and `close` it there."""

    def __init__(
        self,
        default: TokenizerChoice = REMOTE,
        by_model: Mapping[str, TokenizerChoice] | None = None,
        *,
        api_key: str | None = None,
        clock: Callable[[], float],
    ) -> None:
        """Load the tokenizers that are named here. Raises ConfigError.

        A publisher may name one for its model, which goes before these. It is loaded at the first question about it.
        """
        self._default = default
        self._by_model = dict(by_model or {})
        self._clock = clock
        self._remote = RemoteTokenizer(api_key, clock)
        self._local: dict[TokenizerChoice, LocalTokenizer] = {}
        self._loading: dict[TokenizerChoice, _Loading] = {}
        for choice in {default, *self._by_model.values()} - {REMOTE}:
            try:
                self._local[choice] = LocalTokenizer(load_encoder(choice), clock)
            except TokenizeError as error:
                raise ConfigError(f"--tokenizer {choice}: {error}") from None

    async def tokens(self, model: str, body: dict[str, Any], links: Sequence[PublisherLink]) -> Tokenized:
        """Tokens of a body for `/tokenize`; `links` are the publishers of the model.

        Raises RequestError if the text or the model cannot be used, UnknownPromptError, and TokenizeError if there is
        no answer in time.
        """
        choice = self.choice(model, links)
        if choice == REMOTE:
            return await self._remote.tokens(model, body, links)
        local = self._local.get(choice)
        if local is None:
            raise TokenizeError(f"{choice}: {self._load(choice)}")
        try:
            size = len(msgspec.json.encode(body))
        except RecursionError:
            raise RequestError(422, "the request is nested too deeply") from None
        return await local.tokens(body, size)

    def choice(self, model: str, links: Sequence[PublisherLink]) -> TokenizerChoice:
        """The tokenizer of a model: that of its publishers, else that of the flag for the model, else the default."""
        named = next((link.spec.tokenizer for link in links if link.spec.tokenizer is not None), None)
        return named or self._by_model.get(model, self._default)

    def _load(self, choice: TokenizerChoice) -> str:
        """Begin to load a tokenizer if it is not being loaded. Returns why it cannot be used yet."""
        loading = self._loading.setdefault(choice, _Loading())
        if loading.task is None and self._clock() >= loading.again_at:
            loading.problem = "is being loaded"
            loading.task = asyncio.create_task(self._finish(choice, loading), name="tokenizer")
        return loading.problem

    async def _finish(self, choice: TokenizerChoice, loading: _Loading) -> None:
        try:
            self._local[choice] = LocalTokenizer(await asyncio.to_thread(load_encoder, choice), self._clock)
            _log.info("tokenizer_loaded", tokenizer=str(choice))
        except TokenizeError as error:
            loading.problem, loading.again_at = str(error), self._clock() + RETRY_S
            _log.error("tokenizer_failed", tokenizer=str(choice), problem=str(error))
        finally:
            loading.task = None

    async def close(self) -> None:
        """Close the connections and end the threads."""
        for loading in self._loading.values():
            if loading.task is not None:
                loading.task.cancel()
        for local in self._local.values():
            local.close()
        await self._remote.close()


def load_encoder(choice: TokenizerChoice) -> TextEncoder:
    """The encoder of a choice other than `remote`. Raises TokenizeError."""
    if choice.kind == "mock":
        return MockText()
    try:
        from kvsync_indexer.tokenizing.huggingface import HuggingFaceText  # its dependencies are optional
    except ImportError as error:
        raise TokenizeError(f"needs {error.name}: install kvsync-indexer[hf]") from None
    return HuggingFaceText(choice.path or Path())
