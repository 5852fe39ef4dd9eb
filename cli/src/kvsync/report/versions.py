"""Collects the versions that a report records."""

import importlib.util
import platform
from importlib.metadata import PackageNotFoundError, version

from kvsync_events import NEWEST_VERSION

MEMBERS = ("kvsync", "kvsync-events", "kvsync-workload", "kvsync-mockpod", "kvsync-indexer")


def native_version() -> str | None:
    """Return the version of the native index core, or None if it is not installed."""
    if importlib.util.find_spec("kvsync_native") is None:
        return None
    try:
        return version("kvsync-native")
    except PackageNotFoundError:
        return "unknown"


def collect_versions(core: str) -> dict[str, str | None]:
    """Return the versions of the members, of Python, of the vLLM wire and of the native core.

    `core` is the kind of index core that the run used. A package that is not installed has the version None.
    """
    versions: dict[str, str | None] = {}
    for name in MEMBERS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions | {
        "python": platform.python_version(),
        "vllm_wire": NEWEST_VERSION,
        "index_core": core,
        "kvsync_native": native_version(),
    }
