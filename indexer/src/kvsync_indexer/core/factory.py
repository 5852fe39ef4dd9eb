"""Choosing the implementation: native where it is installed, pure Python everywhere else."""

import secrets
from importlib import import_module
from typing import Final, Literal, TypeAlias, cast

from kvsync_indexer.core.errors import CoreUnavailableError
from kvsync_indexer.core.protocol import CoreLimits, IndexCore
from kvsync_indexer.core.python_core import PythonCore

CoreKind: TypeAlias = Literal["auto", "python", "native"]
CORE_KINDS: Final[tuple[CoreKind, ...]] = ("auto", "python", "native")


def native_available() -> tuple[bool, str]:
    """Whether the native core can be used; the text says why not."""
    try:
        import_module("kvsync_native")
    except ImportError as error:
        return False, str(error)
    return True, ""


def make_core(kind: CoreKind = "auto", limits: CoreLimits | None = None, seed: int | None = None) -> IndexCore:
    """An empty core; `auto` chooses the native one if it is installed.

    `seed` (64 bits) goes into every key and into the tables, so that nobody who does not know it can choose hashes that
    collide. Without one it is random. A snapshot carries it, and a core that is restored takes the snapshot's.

    Raises CoreUnavailableError if the native core is requested and not installed, and ValueError for an unknown kind.
    """
    if kind not in CORE_KINDS:
        raise ValueError(f"core must be one of {', '.join(CORE_KINDS)}, not {kind!r}")
    if seed is None:
        seed = secrets.randbits(64)
    if kind == "python":
        return PythonCore(limits, seed)
    try:
        native = import_module("kvsync_native")
    except ImportError as error:
        if kind == "native":
            raise CoreUnavailableError(f"the native core is not installed: {error}") from None
        return PythonCore(limits, seed)
    return cast("IndexCore", native.IndexCore(limits, seed))
