"""The answers of the mock model, determined by the seed and the prompt alone.

The same prompt with the same seeds gets the same answer on every pod and in every run, whatever other requests are
served. A token of an answer is computed from its position alone, so a preempted request continues where it was.
Generated tokens survive the tokenizer: an answer that is sent back as part of the next prompt has the same ids and is
hit in the cache.
"""

import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

from kvsync_events.mocktext import EOS, Tokenizer
from kvsync_mockpod.text.words import PHRASE_TOKENS, build_openings, build_phrases

_MASK = 2**64 - 1


def _mix(value: int) -> int:
    """Mix 64 bits (the finalizer of splitmix64, Steele et al. 2014)."""
    value &= _MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of one request: `seed` determines the words, `length` is the position (from 0) of EOS."""

    seed: int
    length: int
    opening: bool


class TextModel:
    """Produces answers from a seed; `mean_tokens` is the mean length of an answer that ends by itself."""

    def __init__(self, tokenizer: Tokenizer, seed: int, mean_tokens: int) -> None:
        self._seed = seed
        self._mean = mean_tokens
        self._phrases = build_phrases(tokenizer, seed)
        self._openings = build_openings(tokenizer, seed)

    def answer(
        self, prompt: Sequence[int], seed: int | None, index: int, *, opening: bool, min_tokens: int = 0
    ) -> Answer:
        """Plan the answer to `prompt`; `seed` is that of the request, `index` distinguishes n parallel answers."""
        key = crc32(array("I", prompt).tobytes())
        key = _mix(key ^ _mix(self._seed) ^ _mix(0x9E37 if seed is None else seed & _MASK) ^ _mix(index + 1))
        spread = random.Random(key).random()
        length = max(int(self._mean * (0.5 + spread)), min_tokens, 1)
        return Answer(key, length, opening)

    def token(self, answer: Answer, position: int) -> int:
        """The token id at `position` (from 0) of `answer`; EOS where the answer ends."""
        if position == answer.length:
            return EOS
        group, rest = divmod(position, PHRASE_TOKENS)
        choice = _mix(answer.seed + group)
        if group == 0 and answer.opening:
            return self._openings[choice % len(self._openings)][rest]
        return self._phrases[choice % len(self._phrases)][rest]
