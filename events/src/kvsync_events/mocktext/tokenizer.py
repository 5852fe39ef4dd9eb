"""A reversible tokenizer without model files.

Block hashes depend on token ids, so a mock needs ids that are the same in every process, for any text in any language,
and that decode to exactly the text they were made from. A real vocabulary would need megabytes of model files. Here an
id contains the text itself, packed.

Layout of an id (all ids are below 2**29):

| ids                       | meaning                                                      |
|---------------------------|--------------------------------------------------------------|
| 0 .. 15                   | special tokens, written `<|name|>` in text                   |
| 16 .. 65,535              | opaque: no text of their own, written `<|t123|>`             |
| 65,536 + code point       | one character of any script                                  |
| 0x200000 + 14 bits        | two ASCII characters, seven bits each, first one highest     |
| 0x400000 + 21 bits        | three ASCII characters                                       |
| 0x10000000 + 28 bits      | four ASCII characters                                        |

Ids in between are opaque too. One regular expression splits text into pieces of at most four ASCII characters (a word
includes the space before it, digits are grouped by three); every other character is a piece of its own. English text
therefore has about as many tokens per word as with real vocabularies, and a longer text keeps the tokens of its prefix
up to the last piece.

`decode(encode(text)) == text` holds for every text, and `encode(decode(ids)) == ids` for ids that `encode` can produce
and for opaque ids. Token ids from other sources are accepted up to 2**32 - 1 and survive in the same way.
"""

import re
from collections.abc import Iterable, Sequence

from kvsync_events.errors import TextError

SPECIALS = ("pad", "bos", "eos", "im_start", "im_end", "image", "audio", "video", "tool", "think")
EOS = 2
IM_START = 3
IM_END = 4

CHARACTER_BASE = 65_536
PAIR_BASE = 0x20_0000
TRIPLE_BASE = 0x40_0000
QUAD_BASE = 0x1000_0000
VOCAB_SIZE = 0x2000_0000
MAX_TOKEN_ID = 2**32 - 1

_PIECE = re.compile(
    r"<\|[a-z][a-z0-9_]{0,15}\|>"  # special and opaque tokens
    r"| [A-Za-z]{1,3}|[A-Za-z]{1,4}"  # a word includes the space before it
    r"| ?[0-9]{1,3}"
    r"|[ \t\r\n]{1,4}"
    r"|[!-/:-@\[-`{-~]{1,4}"
    r"|[\s\S]"
)
_SPECIAL_IDS = {f"<|{name}|>": index for index, name in enumerate(SPECIALS)}
_OPAQUE = re.compile(r"<\|t(0|[1-9][0-9]{0,9})\|>\Z")
_CACHE_LIMIT = 65_536


def _has_text(token: int) -> bool:
    """Whether an id contains packed text, as opposed to a special or opaque id."""
    if token < CHARACTER_BASE:
        return False
    if token <= CHARACTER_BASE + 0x10FFFF:
        return not 0xD800 <= token - CHARACTER_BASE <= 0xDFFF
    return (
        PAIR_BASE <= token < PAIR_BASE + (1 << 14)
        or TRIPLE_BASE <= token < TRIPLE_BASE + (1 << 21)
        or QUAD_BASE <= token < QUAD_BASE + (1 << 28)
    )


def _pack(piece: str) -> tuple[int, ...]:
    """The ids of one piece: normally one id, several for text that only looks like a marker."""
    if piece.startswith("<|") and len(piece) > 4:
        special = _SPECIAL_IDS.get(piece)
        if special is not None:
            return (special,)
        opaque = _OPAQUE.match(piece)
        if opaque is not None:
            token = int(opaque[1])
            if len(SPECIALS) <= token <= MAX_TOKEN_ID and not _has_text(token):
                return (token,)
        return tuple(_pack_text(part) for part in _cut_marker(piece))
    return (_pack_text(piece),)


def _cut_marker(piece: str) -> list[str]:
    """Split text that only looks like a special token in the way the rest of the expression would."""
    return ["<|", *_PIECE.findall(piece[2:-2]), "|>"]


def _pack_text(piece: str) -> int:
    size = len(piece)
    if size == 1:
        code = ord(piece)
        if 0xD800 <= code <= 0xDFFF:
            raise TextError(f"text contains a lone surrogate U+{code:04X}, which UTF-8 cannot represent")
        return CHARACTER_BASE + code
    packed = 0
    for character in piece:
        packed = packed << 7 | ord(character)
    return (PAIR_BASE, TRIPLE_BASE, QUAD_BASE)[size - 2] + packed


def _unpack(token: int) -> str:
    if not _has_text(token):
        if token < len(SPECIALS):
            return f"<|{SPECIALS[token]}|>"
        return f"<|t{token}|>"
    if token < PAIR_BASE:
        return chr(token - CHARACTER_BASE)
    if token >= QUAD_BASE:
        size, packed = 4, token - QUAD_BASE
    elif token >= TRIPLE_BASE:
        size, packed = 3, token - TRIPLE_BASE
    else:
        size, packed = 2, token - PAIR_BASE
    return "".join(chr(packed >> shift & 0x7F) for shift in range(7 * (size - 1), -1, -7))


class _Ids(dict[str, tuple[int, ...]]):
    """A bounded cache from piece to ids; it is emptied when it is full."""

    def __missing__(self, piece: str) -> tuple[int, ...]:
        if len(self) >= _CACHE_LIMIT:
            self.clear()
        ids = self[piece] = _pack(piece)
        return ids


class _Texts(dict[int, str]):
    """A bounded cache from id to text; it is emptied when it is full."""

    def __missing__(self, token: int) -> str:
        if len(self) >= _CACHE_LIMIT:
            self.clear()
        text = self[token] = _unpack(token)
        return text


class Tokenizer:
    """Converts text to token ids and back; its only state is two bounded caches."""

    def __init__(self) -> None:
        self._ids = _Ids()
        self._texts = _Texts()

    def encode(self, text: str) -> list[int]:
        """The token ids of `text`.

        Raises:
            TextError: the text contains a lone surrogate.
        """
        ids = self._ids
        return [token for piece in _PIECE.findall(text) for token in ids[piece]]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of `tokens`; special and opaque ids appear as markers."""
        return "".join(map(self._texts.__getitem__, tokens))

    def token_text(self, token: int) -> str:
        """The text of one id, as a stream sends it."""
        return self._texts[token]

    def token_strings(self, tokens: Sequence[int]) -> list[str]:
        """The text of each id separately."""
        return [self._texts[token] for token in tokens]
