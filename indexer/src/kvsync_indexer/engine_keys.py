"""Keys and tokens of HTTP APIs, as flags, files and the environment give them."""

from pathlib import Path

from kvsync_indexer.errors import ConfigError

MAX_KEY_BYTES = 4096


def read_api_key(key: str | None, file: Path | None) -> str | None:
    """The key itself, or the first line of `file`. Raises ConfigError."""
    if file is None:
        return key or None
    if key:
        raise ConfigError("--engine-api-key and --engine-api-key-file: give one of them")
    return read_secret("--engine-api-key-file", file)


def read_secret(flag: str, file: Path) -> str:
    """The one word in a file that the flag names. Raises ConfigError."""
    secrets = _words(flag, file)
    if len(secrets) != 1:
        raise ConfigError(f"{flag} {file}: must hold one key and nothing else")
    return secrets[0]


def read_secrets(flag: str, file: Path) -> list[str]:
    """The words in a file that the flag names, at least one. Raises ConfigError."""
    secrets = _words(flag, file)
    if not secrets:
        raise ConfigError(f"{flag} {file}: is empty")
    return secrets


def _words(flag: str, file: Path) -> list[str]:
    try:
        with file.open(encoding="utf-8") as opened:
            text = opened.read(MAX_KEY_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{flag} {file}: {getattr(error, 'strerror', None) or 'not text'}") from None
    return text.split()
