"""Which tokenizer to use for a model: `remote`, `mock`, or `hf:` and the path of a folder or of a `tokenizer.json`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from kvsync_indexer.errors import ConfigError

_FORMS: Final = "remote, mock or hf:PATH (a folder or a tokenizer.json)"
_CHOICE: Final = re.compile(r"(?P<kind>remote|mock)|hf:(?P<path>.+)", re.DOTALL)
_FLAG: Final = re.compile(r"(?:(?P<model>.+?)=)?(?P<choice>remote|mock|hf:.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TokenizerChoice:
    """A tokenizer that can be made."""

    kind: Literal["remote", "mock", "hf"]
    path: Path | None = None
    """Of the folder or file, for the kind `hf`."""

    def __str__(self) -> str:
        """The text that `parse_choice` reads."""
        return self.kind if self.path is None else f"{self.kind}:{self.path}"


REMOTE: Final = TokenizerChoice("remote")


def parse_choice(text: str) -> TokenizerChoice:
    """The choice that `text` names. Raises ValueError."""
    found = _CHOICE.fullmatch(text)
    if found is None:
        raise ValueError(f"must be {_FORMS}")
    if found["path"] is not None:
        return TokenizerChoice("hf", Path(found["path"]))
    return TokenizerChoice("mock") if found["kind"] == "mock" else REMOTE


def parse_flags(flags: Iterable[str]) -> tuple[TokenizerChoice, dict[str, TokenizerChoice]]:
    """The default and the choices by model in values of `--tokenizer`, `[MODEL=]CHOICE`. Raises ConfigError."""
    default: TokenizerChoice | None = None
    by_model: dict[str, TokenizerChoice] = {}
    for flag in flags:
        found = _FLAG.fullmatch(flag)
        if found is None:
            raise ConfigError(f"--tokenizer {flag!r:.300}: must be {_FORMS}, with MODEL= before it for one model only")
        choice, model = parse_choice(found["choice"]), found["model"]
        if model is None:
            if default is not None:
                raise ConfigError("--tokenizer: two values without MODEL=")
            default = choice
        elif by_model.setdefault(model, choice) != choice:
            raise ConfigError(f"--tokenizer: two values for model {model!r:.300}")
    return default or REMOTE, by_model
