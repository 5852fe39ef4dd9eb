"""Refusing unknown names with the nearest valid one, in one wording for the whole kit."""

import difflib
from collections.abc import Iterable

from kvsync_testkit.errors import ConfigurationError


def unknown_name(what: str, name: str, valid: Iterable[str]) -> ConfigurationError:
    """The error for a name that is none of `valid`; it proposes the most similar one, or lists them all."""
    names = [str(one) for one in valid]
    folded = {one.casefold(): one for one in names}
    near = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.5)
    hint = f"did you mean {folded[near[0]]!r}?" if near else f"it is one of {', '.join(names)}"
    return ConfigurationError(f"unknown {what} {name!r}: {hint}")
