"""Which versions made a report."""

import platform
from importlib.metadata import PackageNotFoundError, version

from kvsync_events import NEWEST_VERSION

MEMBERS = ("kvsync", "kvsync-events", "kvsync-mockpod", "kvsync-indexer")


def native_version() -> str | None:
    """Version of the native index core, or None where it is not installed."""
    try:
        import kvsync_native
    except ImportError:
        return None
    found: str = getattr(kvsync_native, "__version__", "unknown")
    return found


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
