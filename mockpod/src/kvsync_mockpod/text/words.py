"""The vocabulary of generated text: short common words, and phrases made of them.

A phrase has exactly `PHRASE_TOKENS` tokens, so the token at any position of an answer can be found without generating
those before it. The words were chosen for this project as harmless filler.
"""

import random
from collections.abc import Sequence

from kvsync_events.mocktext import Tokenizer

PHRASE_TOKENS = 8

_SHORT_TEXT = (
    "the a an we it so if as at by in on to of up or no my our one two six ten and but for nor yet now new old "
    "all any few own red sky sea sun day map key box cup hat ink oak owl pen tea van"
)
_LONG_TEXT = (
    "river stone garden window morning lantern copper harbor meadow signal winter engine paper letter summer "
    "bridge forest island valley canyon pebble basket violet amber thunder silver saddle market kitchen ladder "
    "journey station planet orchard ribbon sparrow compass village mirror blanket candle feather granite hollow "
    "marble needle pocket quartz rocket shelter temple velvet walnut yellow zephyr answer balance careful distant "
    "early follow gather happen inside keeper little measure nearby open pattern quiet remember simple travel under"
)
SHORT = _SHORT_TEXT.split()
LONG = _LONG_TEXT.split()
_PHRASES = 512


def build_phrases(tokenizer: Tokenizer, seed: int) -> list[tuple[int, ...]]:
    """A fixed number of phrases, each with `PHRASE_TOKENS` ids and text that starts with a space; the same for the same
    seed.
    """
    chance = random.Random(f"phrases {seed}")
    long_words = [tuple(tokenizer.encode(f" {word}")) for word in LONG]
    short_words = [tuple(tokenizer.encode(f" {word}")) for word in SHORT]
    return [_fill(chance, (), long_words, short_words) for _ in range(_PHRASES)]


def build_openings(tokenizer: Tokenizer, seed: int) -> list[tuple[int, ...]]:
    """Phrases to begin an answer with: they start with a capital letter, without a space."""
    chance = random.Random(f"openings {seed}")
    long_words = [tuple(tokenizer.encode(f" {word}")) for word in LONG]
    short_words = [tuple(tokenizer.encode(f" {word}")) for word in SHORT]
    first = [tuple(tokenizer.encode(word.capitalize())) for word in LONG]
    return [_fill(chance, chance.choice(first), long_words, short_words) for _ in range(64)]


def _fill(
    chance: random.Random,
    start: tuple[int, ...],
    long_words: Sequence[tuple[int, ...]],
    short_words: Sequence[tuple[int, ...]],
) -> tuple[int, ...]:
    phrase = list(start)
    while len(phrase) < PHRASE_TOKENS:
        word = chance.choice(long_words if chance.random() < 0.6 else short_words)
        if len(phrase) + len(word) > PHRASE_TOKENS:
            word = chance.choice(short_words)
        phrase.extend(word)
    return tuple(phrase[:PHRASE_TOKENS])
