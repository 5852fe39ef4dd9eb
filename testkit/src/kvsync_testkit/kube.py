"""Access to the cluster: objects as plain dicts, and pods and Services through the proxy of the API server.

The official client supplies configuration, certificates and credentials. Because of the proxy a suite needs only the
API server, so it works on kind and on a remote cluster alike.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote, urlencode

import urllib3
from kubernetes import client, config, stream

from kvsync_testkit.errors import KitError

Object = dict[str, Any]
Json: TypeAlias = Any
"""A decoded JSON value."""

FIELD_MANAGER = "kvsync-testkit"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"

_PATHS = {
    "Namespace": ("/api/v1", "namespaces"),
    "Node": ("/api/v1", "nodes"),
    "PersistentVolume": ("/api/v1", "persistentvolumes"),
    "Pod": ("/api/v1", "pods"),
    "Service": ("/api/v1", "services"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "Event": ("/api/v1", "events"),
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "PersistentVolumeClaim": ("/api/v1", "persistentvolumeclaims"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "StatefulSet": ("/apis/apps/v1", "statefulsets"),
    "ReplicaSet": ("/apis/apps/v1", "replicasets"),
    "Role": ("/apis/rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    "ClusterRole": ("/apis/rbac.authorization.k8s.io/v1", "clusterroles"),
    "ClusterRoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "clusterrolebindings"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "StorageClass": ("/apis/storage.k8s.io/v1", "storageclasses"),
    "CustomResourceDefinition": ("/apis/apiextensions.k8s.io/v1", "customresourcedefinitions"),
    "MockEngine": ("/apis/kvsync.dev/v1alpha1", "mockengines"),
    "PrefixIndex": ("/apis/kvsync.dev/v1alpha1", "prefixindexes"),
    "NetworkChaos": ("/apis/chaos-mesh.org/v1alpha1", "networkchaos"),
    "PodChaos": ("/apis/chaos-mesh.org/v1alpha1", "podchaos"),
    "StressChaos": ("/apis/chaos-mesh.org/v1alpha1", "stresschaos"),
}


class KubeError(KitError):
    """An answer of the API server, or of a pod or Service behind its proxy, whose status is not 2xx."""

    def __init__(self, status: int, method: str, path: str, body: str) -> None:
        super().__init__(f"{method} {path}: {status} {body[:2000]}")
        self.status = status
        self.body = body


@dataclass(frozen=True)
class Answer:
    """An answer with any status."""

    status: int
    headers: Mapping[str, str]
    data: bytes

    def json(self) -> Json:
        """Decode the body; raise ValueError if it is not JSON."""
        return json.loads(self.data)


class Kube:
    """A connection to one API server. It is thread-safe."""

    def __init__(self, kubeconfig: Path) -> None:
        settings = client.Configuration()
        config.load_kube_config(str(kubeconfig), client_configuration=settings)  # type: ignore[no-untyped-call]
        settings.connection_pool_maxsize = 64
        self.kubeconfig = kubeconfig
        self._settings = settings
        self._client = client.ApiClient(settings)
        self._pool = self._client.rest_client.pool_manager

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()

    def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
    ) -> Answer:
        """Send a request and return the answer with any status; raise `OSError` if there is none in time."""
        head = {"Accept": "application/json", **(headers or {})}
        if body is not None:
            head["Content-Type"] = content_type
        self._client.update_params_for_auth(head, [], ["BearerToken"], path, method, body)
        url = self._settings.host + path + (f"?{urlencode(query)}" if query else "")
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        try:
            answer = self._pool.request(method, url, body=content, headers=head, timeout=timeout_s, retries=False)
        except urllib3.exceptions.HTTPError as error:
            raise ConnectionError(f"{method} {path}: {error}") from error
        return Answer(answer.status, answer.headers, answer.data)

    def call(self, method: str, path: str, body: object = None, **options: Json) -> Json:
        """Send a request and return the JSON or text of the answer; raise `KubeError` if its status is not 2xx."""
        answer = self.send(method, path, body, **options)
        if not 200 <= answer.status < 300:
            raise KubeError(answer.status, method, path, answer.data.decode(errors="replace"))
        if "json" in answer.headers.get("Content-Type", ""):
            return answer.json()
        return answer.data.decode(errors="replace")

    # objects

    def get(self, kind: str, name: str, namespace: str = "") -> Object:
        """Return the object; raise `KubeError` with status 404 if there is none."""
        found: Object = self.call("GET", _path(kind, namespace, name))
        return found

    def find(self, kind: str, name: str, namespace: str = "") -> Object | None:
        """Return the object, None if there is none."""
        try:
            return self.get(kind, name, namespace)
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    def objects(self, kind: str, namespace: str = "", selector: str = "") -> list[Object]:
        """Return the objects of a kind in a namespace, or in all namespaces, that match a label selector."""
        query = {"labelSelector": selector} if selector else None
        items = self.call("GET", _path(kind, namespace), query=query)["items"]
        return [{**item, "kind": kind} for item in items]

    def apply(self, obj: Object, *, dry_run: bool = False) -> Object:
        """Apply an object server-side."""
        meta = obj["metadata"]
        query = {"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        path = _path(obj["kind"], meta.get("namespace", ""), meta["name"])
        applied: Object = self.call("PATCH", path, obj, query=query, content_type=APPLY)
        return applied

    def patch(self, kind: str, name: str, namespace: str, change: Object, *, subresource: str = "") -> Object:
        """Change an object with a JSON merge patch."""
        path = _path(kind, namespace, name) + (f"/{subresource}" if subresource else "")
        changed: Object = self.call("PATCH", path, change, content_type=MERGE)
        return changed

    def delete(self, kind: str, name: str, namespace: str = "", *, grace_s: int | None = None) -> None:
        """Delete an object with background propagation; an object that does not exist is no error."""
        body: Object = {"propagationPolicy": "Background"}
        if grace_s is not None:
            body["gracePeriodSeconds"] = grace_s
        try:
            self.call("DELETE", _path(kind, namespace, name), body)
        except KubeError as error:
            if error.status != 404:
                raise

    def scale(self, kind: str, name: str, namespace: str, replicas: int) -> Object:
        """Change the replicas through the scale subresource, like `kubectl scale` and autoscalers."""
        return self.patch(kind, name, namespace, {"spec": {"replicas": replicas}}, subresource="scale")

    def logs(self, pod: str, namespace: str, container: str, *, previous: bool = False) -> str:
        """Return the last 2,000 lines of the log of a container."""
        query = {"container": container, "previous": str(previous).lower(), "tailLines": "2000"}
        return str(self.call("GET", _path("Pod", namespace, pod) + "/log", query=query))

    def execute(self, pod: str, namespace: str, command: list[str], *, timeout_s: float = 30.0) -> str:
        """Run a command in the first container of the pod and return its output."""
        with client.ApiClient(self._settings) as connection:
            session = stream.stream(
                client.CoreV1Api(connection).connect_get_namespaced_pod_exec, pod, namespace, command=command,
                stdin=False, stdout=True, stderr=True, tty=False, _preload_content=False,
            )  # fmt: skip
            try:
                session.run_forever(timeout=timeout_s)
                return str(session.read_all())
            finally:
                session.sock.shutdown()  # close() leaves the socket open if the other end closed first

    def can_i(
        self, user: str, verb: str, resource: str, *, group: str = "", namespace: str = "", sub: str = ""
    ) -> bool:
        """Ask the API server whether `user`, a full user name, has a permission."""
        attributes = {"verb": verb, "resource": resource, "group": group, "namespace": namespace, "subresource": sub}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": _groups(user), "resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        return bool(self.call("POST", path, review)["status"]["allowed"])

    # pods and Services over HTTP

    def pod_path(self, namespace: str, pod: str, port: int, path: str) -> str:
        """Return the path that reaches a port of a pod through the API server."""
        return f"/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}"

    def service_path(self, namespace: str, service: str, port: str, path: str) -> str:
        """Return the path that reaches a named port of a Service through the API server."""
        return f"/api/v1/namespaces/{namespace}/services/{service}:{port}/proxy{path}"


def _path(kind: str, namespace: str = "", name: str = "") -> str:
    base, plural = _PATHS[kind]
    scope = f"/namespaces/{namespace}" if namespace and kind != "Namespace" else ""
    return f"{base}{scope}/{plural}" + (f"/{quote(name)}" if name else "")


def _groups(user: str) -> list[str]:
    parts = user.split(":")
    if parts[:2] == ["system", "serviceaccount"]:
        return ["system:authenticated", "system:serviceaccounts", f"system:serviceaccounts:{parts[2]}"]
    return ["system:authenticated"]


def condition(obj: Object, kind: str) -> Object:
    """Return the condition of that type; its status is "absent" if the object has none."""
    conditions: list[Object] = obj.get("status", {}).get("conditions", [])
    for item in conditions:
        if item["type"] == kind:
            return item
    return {"type": kind, "status": "absent", "reason": "", "message": ""}


def is_ready(pod: Object) -> bool:
    """Return whether the pod is ready and not terminating."""
    return condition(pod, "Ready")["status"] == "True" and "deletionTimestamp" not in pod["metadata"]


def has_writable_volumes(kube: Kube) -> bool:
    """Return whether a non-root pod can write to volumes of the default storage class.

    The in-tree host-path provisioner, which kind uses if there is no other, creates folders that belong to root.
    """
    default = "storageclass.kubernetes.io/is-default-class"
    classes = kube.objects("StorageClass")
    chosen = [item for item in classes if item["metadata"].get("annotations", {}).get(default) == "true"]
    return any(item["provisioner"] != "kubernetes.io/host-path" for item in chosen)


def find_kubeconfig(root: Path) -> Path:
    """Return the path in KUBECONFIG, otherwise the one that `make cluster-up` recorded."""
    named = os.environ.get("KUBECONFIG")
    if named:
        return Path(named)
    for line in _lines(root / "out" / "cluster.env"):
        if line.startswith("KUBECONFIG="):
            return Path(line.split("=", 1)[1].strip())
    raise FileNotFoundError("no cluster: set KUBECONFIG or run `make cluster-up`")


def cluster_setting(root: Path, name: str) -> str:
    """Return a value of the environment or of out/cluster.env; empty if it is in neither."""
    if name in os.environ:
        return os.environ[name]
    for line in _lines(root / "out" / "cluster.env"):
        if line.startswith(f"{name}="):
            return line.split("=", 1)[1].strip()
    return ""


def _lines(path: Path) -> Iterator[str]:
    if path.exists():
        yield from path.read_text().splitlines()
