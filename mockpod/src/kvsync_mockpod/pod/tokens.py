"""The bearer tokens of the debug endpoints: those of the block table and those of faults."""

from pathlib import Path

from kvsync_mockpod.config import PodConfig
from kvsync_mockpod.errors import ConfigError


def read_debug_tokens(config: PodConfig) -> dict[str, list[bytes]]:
    """The tokens by the beginning of the path; an empty list permits everybody. Raises ConfigError."""
    return {
        "/debug/faults": _read("mock_fault_token_file", config.mock_fault_token_file),
        "/debug/kv": _read("mock_debug_token_file", config.mock_debug_token_file),
    }


def _read(field: str, file: Path | None) -> list[bytes]:
    if file is None:
        return []
    try:
        tokens = file.read_bytes().split()
    except OSError as error:
        raise ConfigError(f"{field}: {file}: {error.strerror}") from None
    if not tokens:
        raise ConfigError(f"{field}: {file}: is empty")
    return tokens
