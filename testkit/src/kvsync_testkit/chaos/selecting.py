"""The choice of a backend: the cluster that is up, otherwise this machine."""

from pathlib import Path

from kvsync_testkit.chaos.backend import Backend
from kvsync_testkit.chaos.cluster import ClusterBackend
from kvsync_testkit.chaos.errors import ChaosError
from kvsync_testkit.chaos.local import LocalBackend
from kvsync_testkit.chaos.manifests import experiments
from kvsync_testkit.chaos.mesh import MeshBackend
from kvsync_testkit.kube import Kube, find_kubeconfig


def make_backend(name: str, out: Path, folder: Path) -> Backend:
    """Return the backend of that name; `auto` is a cluster if one answers, otherwise `local`.

    Raises:
        ChaosError: a cluster was asked for and none answers, or Chaos Mesh is not installed on it.
    """
    if name == "local":
        return LocalBackend(out / "logs")
    try:
        kube = Kube(find_kubeconfig(Path.cwd()))
        kube.call("GET", "/readyz", timeout_s=10.0)
    except Exception as error:  # noqa: BLE001 - the client of Kubernetes has no common exception
        if name == "auto":
            return LocalBackend(out / "logs")
        raise ChaosError(f"no cluster answers: {error}") from None
    if name != "chaos-mesh":
        return ClusterBackend(kube)
    found = kube.find("Deployment", "chaos-controller-manager", "chaos-mesh")
    if found is None:
        raise ChaosError("Chaos Mesh is not installed: make chaos-mesh-up")
    image = found["spec"]["template"]["spec"]["containers"][0]["image"]
    return MeshBackend(kube, experiments(folder), f"Chaos Mesh controller {image}{_commit()}")


def _commit() -> str:
    """Return the pinned commit where the images were built from Go modules."""
    pins = Path("hack/airgap/versions.env")
    lines = pins.read_text().splitlines() if pins.exists() else []
    pinned = [line.split("=", 1)[1] for line in lines if line.startswith("CHAOS_MESH_MODULE=")]
    return f", commit {pinned[0]}" if pinned else ""
