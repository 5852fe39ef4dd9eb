"""Speculative entries: prompts that were just routed count as cached for a short while, before any event says so.

An engine announces a block after it has computed it. Requests with the same beginning that arrive in between would be
spread over the engines, each of which would compute the beginning once more. The entries are an assumption of the
router: they steer decisions, and are neither part of a prediction nor of the figures about hits.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from kvsync_indexer.api import MatchRequest

CHUNK_TOKENS: Final = 64
"""Prompts are compared in pieces of this many tokens, whatever the block size of the engines."""
CHARACTERS_PER_TOKEN: Final = 4
MOST_CHUNKS: Final = 1 << 16
"""Pieces that are remembered; the oldest is forgotten."""


class Speculation:
    """Which endpoint was sent which beginning of a prompt, for `ttl_s` seconds of the monotonic `clock`."""

    def __init__(self, ttl_s: float, clock: Callable[[], float]) -> None:
        """With a `ttl_s` of 0 nothing is remembered."""
        self._ttl_s = ttl_s
        self._clock = clock
        self._placed_at: OrderedDict[int, dict[str, float]] = OrderedDict()
        """When a beginning was last sent to each endpoint, by its hash."""
        self._failed_at: dict[str, float] = {}

    @property
    def enabled(self) -> bool:
        """Whether anything is remembered."""
        return self._ttl_s > 0

    def chain(self, question: MatchRequest) -> tuple[int, ...]:
        """The hashes of the beginnings of a prompt: of its first piece, of its first two pieces, and so on."""
        if not self.enabled:
            return ()
        before = hash((question.model, question.lora, question.cache_salt))
        chain: list[int] = []
        for piece in _pieces(question):
            before = hash((before, piece))
            chain.append(before)
        return tuple(chain)

    def matched_tokens(self, chain: Sequence[int]) -> dict[str, int]:
        """Assumed tokens by endpoint; an endpoint without any is absent."""
        now = self._clock()
        matched: dict[str, int] = {}
        for number, key in enumerate(chain):
            reached = number * CHUNK_TOKENS
            holders = [
                name
                for name, placed_at in self._placed_at.get(key, {}).items()
                if now - placed_at < self._ttl_s
                and placed_at > self._failed_at.get(name, float("-inf"))
                and matched.get(name, 0) == reached
            ]
            if not holders:
                break
            matched.update(dict.fromkeys(holders, reached + CHUNK_TOKENS))
        return matched

    def placed(self, chain: Sequence[int], endpoint: str) -> None:
        """The prompt is sent to `endpoint`."""
        now = self._clock()
        for key in chain:
            self._placed_at.setdefault(key, {})[endpoint] = now
            self._placed_at.move_to_end(key)
        while len(self._placed_at) > MOST_CHUNKS:
            self._placed_at.popitem(last=False)

    def failed(self, endpoint: str) -> None:
        """A request to `endpoint` failed, so what was sent to it until now may never be computed."""
        if self.enabled:
            self._failed_at[endpoint] = self._clock()

    def keep(self, endpoints: set[str]) -> None:
        """Forget the failures of every other endpoint."""
        for name in self._failed_at.keys() - endpoints:
            del self._failed_at[name]


def _pieces(question: MatchRequest) -> list[bytes | str]:
    if question.token_ids is not None:
        ids = question.token_ids
        return [msgspec.json.encode(ids[at : at + CHUNK_TOKENS]) for at in _starts(len(ids), CHUNK_TOKENS)]
    text = question.prompt
    if text is None:
        text = msgspec.json.encode((question.tools, question.messages)).decode()
    size = CHUNK_TOKENS * CHARACTERS_PER_TOKEN
    return [text[at : at + size] for at in _starts(len(text), size)]


def _starts(length: int, step: int) -> range:
    return range(0, length - step + 1, step)
