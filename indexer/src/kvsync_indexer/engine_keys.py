"""The key of the engines' HTTP API, as flags and environment give it."""

from pathlib import Path

from kvsync_indexer.errors import ConfigError

MAX_KEY_BYTES = 4096


def read_api_key(key: str | None, file: Path | None) -> str | None:
    """The key itself, or the first line of `file`. Raises ConfigError."""
    if file is None:
        return key or None
    if key:
        raise ConfigError("--engine-api-key and --engine-api-key-file: give one of them")
    try:
        with file.open(encoding="utf-8") as opened:
            text = opened.read(MAX_KEY_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--engine-api-key-file {file}: {getattr(error, 'strerror', None) or 'not text'}") from None
    lines = text.split()
    if len(lines) != 1:
        raise ConfigError(f"--engine-api-key-file {file}: must hold one key and nothing else")
    return lines[0]
