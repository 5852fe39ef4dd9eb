"""Which versions made a report."""

import importlib.util
import platform
from importlib.metadata import PackageNotFoundError, version

from kvsync_events import NEWEST_VERSION

MEMBERS = ("kvsync", "kvsync-events", "kvsync-workload", "kvsync-mockpod", "kvsync-indexer")


def native_version() -> str | None:
    """Version of the native index core, or None where it is not installed."""
    if importlib.util.find_spec("kvsync_native") is None:
        return None
    try:
        return version("kvsync-native")
    except PackageNotFoundError:
        return "unknown"


def collect_versions(core: str) -> dict[str, str | None]:
    """Our members, Python, the spoken vLLM wire, the index core asked for and the native one's version."""
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
