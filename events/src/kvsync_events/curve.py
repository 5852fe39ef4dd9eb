"""Keys of ZMQ's CURVE security, in the forms in which files hold them.

A key has 40 characters of the Z85 alphabet (ZeroMQ RFC 32). A file holds keys with white space between them, or it is a
certificate of ZMQ with lines such as `secret-key = "…"`.
"""

import re
from pathlib import Path
from typing import Final, Literal

from kvsync_events.errors import CurveKeyError

MOST_BYTES: Final = 1 << 20
_KEY: Final = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_LINE: Final = re.compile(r'^\s*(public|secret)-key\s*=\s*"(.*)"\s*$', re.MULTILINE)


def check_key(text: str) -> str:
    """Return the key. Raises CurveKeyError, whose message does not repeat it."""
    if _KEY.fullmatch(text) is None:
        raise CurveKeyError(f"a CURVE key has 40 characters of the Z85 alphabet, not these {len(text)}")
    return text


def read_keys(path: Path, kind: Literal["public", "secret"]) -> list[str]:
    """Return the keys of this kind in a file, at least one. Raises CurveKeyError, which names the file."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MOST_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise CurveKeyError(f"{path}: {getattr(error, 'strerror', None) or 'not text'}") from None
    lines = _LINE.findall(text)
    words = [key for name, key in lines if name == kind] if lines else text.split()
    if not words:
        raise CurveKeyError(f"{path}: holds no {kind} key")
    try:
        return [check_key(word) for word in words]
    except CurveKeyError as error:
        raise CurveKeyError(f"{path}: {error}") from None


def read_key(path: Path, kind: Literal["public", "secret"]) -> str:
    """Return the only key of this kind in a file. Raises CurveKeyError."""
    keys = read_keys(path, kind)
    if len(keys) != 1:
        raise CurveKeyError(f"{path}: must hold one {kind} key, not {len(keys)}")
    return keys[0]
