"""CRDs and operator on the cluster, installed by helm from this checkout's charts, as a user does it."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e_kube import Kube, Object
from e2e_wait import KubeError, wait_until

NAMESPACE = "kvsync-e2e-system"
RELEASE = "kvsync"
CRDS = ["mockengines.kvsync.dev", "prefixindexes.kvsync.dev"]


class Installation:
    """One installation of both charts; `images` are what the cluster's nodes already hold or can pull."""

    def __init__(self, kube: Kube, root: Path) -> None:
        self.kube = kube
        self.root = root
        self.namespace = NAMESPACE
        self.tag = os.environ.get("KVSYNC_IMAGE_TAG", "e2e")
        self.prefix = os.environ.get("KVSYNC_IMAGE_PREFIX", "kvsync")
        self.images = {name: f"{self.prefix}/{name}:{self.tag}" for name in ("operator", "mockpod", "indexer")}

    def image_override(self, kind: str) -> str:
        """The image a mutant run puts in place of the real one, for resources of `kind`."""
        name = {"MockEngine": "MOCKPOD", "PrefixIndex": "INDEXER"}.get(kind, "")
        return os.environ.get(f"KVSYNC_E2E_{name}_IMAGE", "") if name else ""

    def helm(self, *arguments: str, timeout_s: float = 180.0) -> str:
        """Runs helm against the suite's cluster; raises with what it said."""
        program = subprocess.run(
            [self.root / "hack" / "lib" / "tools.sh", "helm"], capture_output=True, text=True, check=True, timeout=600
        ).stdout.strip()
        done = subprocess.run(
            [program, "--kubeconfig", str(self.kube.kubeconfig), *arguments],
            capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"helm {' '.join(arguments)}: {done.stderr.strip()}"
        return done.stdout

    def install(self, *extra: str) -> None:
        raise NotImplementedError

    def uninstall(self) -> None:
        raise NotImplementedError

    def network_policy_gap(self) -> str:
        raise NotImplementedError

    def samples(self) -> list[Object]:
        """Every object of config/samples."""
        return [obj for path in sorted((self.root / "config" / "samples").glob("*.yaml")) for obj in _documents(path)]


def _documents(path: Path) -> Iterator[Any]:
    yield from (obj for obj in yaml.safe_load_all(path.read_text()) if obj)


__all__ = ["CRDS", "Installation", "KubeError", "pytest", "wait_until"]
