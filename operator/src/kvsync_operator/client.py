"""The API calls that the operator makes itself, through the official client. kopf makes the lists and watches.

The official client is synchronous, so every call runs in a thread pool. The fixed size of the pool also limits the
number of concurrent requests. Every failure is raised as a subclass of `errors.ApiError`.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import kubernetes
from urllib3.exceptions import HTTPError

from kvsync_operator import names
from kvsync_operator.errors import (
    ApiError,
    ConfigError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from kvsync_operator.metrics import API_REQUESTS
from kvsync_operator.reconcile.types import Reference

T = TypeVar("T")

_APPLY = "application/apply-patch+yaml"
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"
_PLURALS = {
    "ConfigMap": "configmaps",
    "Deployment": "deployments",
    "Event": "events",
    "NetworkPolicy": "networkpolicies",
    "Pod": "pods",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "Service": "services",
    "ServiceAccount": "serviceaccounts",
    "StatefulSet": "statefulsets",
    names.POOL: "inferencepools",
    **names.PLURALS,
}


def load_api_client(pool_size: int) -> kubernetes.client.ApiClient:
    """Connect to the cluster in which the process runs, otherwise to the one that KUBECONFIG names.

    Args:
        pool_size: Number of connections to keep open.

    Raises:
        ConfigError: The process runs in no cluster, and KUBECONFIG names none.
    """
    configuration = kubernetes.client.Configuration()
    try:
        kubernetes.config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except kubernetes.config.ConfigException:
        try:
            kubernetes.config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except (kubernetes.config.ConfigException, OSError) as error:
            raise ConfigError(f"no cluster: this is not a pod, and KUBECONFIG names none: {error}") from None
    configuration.connection_pool_maxsize = pool_size
    configuration.retries = False
    return kubernetes.client.ApiClient(configuration)


def resource_path(api_version: str, kind: str, namespace: str | None, name: str | None = None) -> str:
    """Return the path of a kind in one namespace, or in all if `namespace` is None, or of the object called `name`."""
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{scope}/{_PLURALS[kind]}" + (f"/{name}" if name else "")


class KubeClient:
    """An asynchronous interface to the official client. Call `close` at the end.

    Args:
        api: The official client.
        slots: Number of concurrent requests.
        timeout_s: Longest duration of one request, in seconds.
    """

    def __init__(self, api: kubernetes.client.ApiClient, slots: int, timeout_s: float) -> None:
        self._api = api
        self._timeout = (min(5.0, timeout_s), timeout_s)
        self._pool = ThreadPoolExecutor(max_workers=slots, thread_name_prefix="kube-api")

    def close(self) -> None:
        """Wait for the running requests and refuse new ones."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._api.close()  # type: ignore[no-untyped-call]

    async def apply(self, obj: Mapping[str, Any], *, force: bool = True) -> dict[str, Any]:
        """Apply an object server-side and return its new state; `force` takes over fields of other managers."""
        return await self._run(self._apply, obj, force, "")

    async def apply_status(self, document: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, Any]:
        """Apply the whole status of `document` server-side; raise `ConflictError` if its uid is no longer the same."""
        metadata = document["metadata"]
        body = {
            "apiVersion": document["apiVersion"],
            "kind": document["kind"],
            "metadata": {key: metadata[key] for key in ("name", "namespace", "uid")},
            "status": status,
        }
        return await self._run(self._apply, body, True, "/status")

    async def get(self, reference: Reference) -> dict[str, Any] | None:
        """Return the object, None if it does not exist."""
        path = resource_path(reference.api_version, reference.kind, reference.namespace, reference.name)
        try:
            return await self._run(self._request, "GET", path)
        except NotFoundError:
            return None

    async def delete(self, reference: Reference) -> None:
        """Delete the object with background propagation; an object that does not exist is no error."""
        path = resource_path(reference.api_version, reference.kind, reference.namespace, reference.name)
        try:
            await self._run(self._request, "DELETE", path, {"propagationPolicy": "Background"})
        except NotFoundError:
            return

    async def list_metadata(self, api_version: str, kind: str, namespace: str | None) -> list[dict[str, Any]]:
        """Return the metadata of every object of a kind, in one namespace or, if that is None, in all."""
        answer = await self._run(
            self._request, "GET", resource_path(api_version, kind, namespace), None, accept=_METADATA_ONLY
        )
        return [item["metadata"] for item in answer.get("items") or ()]

    async def list_pods(self, namespace: str, selector: str) -> list[dict[str, Any]]:
        """Return the pods that the label selector matches."""
        path = resource_path("v1", "Pod", namespace)
        answer = await self._run(self._request, "GET", path, {"labelSelector": selector})
        return list(answer.get("items") or ())

    async def create(self, obj: Mapping[str, Any]) -> None:
        """Create an object that is never updated, such as an Event; one that exists already is no error."""
        path = resource_path(obj["apiVersion"], obj["kind"], obj["metadata"]["namespace"])
        try:
            await self._run(self._request, "POST", path, {"fieldManager": names.FIELD_MANAGER}, body=obj)
        except ConflictError:
            return

    async def served_kinds(self, api_version: str = names.API_VERSION) -> set[str]:
        """Return the kinds of a group and version that the server knows; empty before its CRDs are installed."""
        try:
            answer = await self._run(self._request, "GET", f"/apis/{api_version}")
        except NotFoundError:
            return set()
        return {item["kind"] for item in answer.get("resources") or ()}

    async def _run(self, call: Callable[..., T], *args: object, **kwargs: object) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: call(*args, **kwargs))

    def _apply(self, obj: Mapping[str, Any], force: bool, subresource: str) -> dict[str, Any]:
        metadata = obj["metadata"]
        path = resource_path(obj["apiVersion"], obj["kind"], metadata["namespace"], metadata["name"]) + subresource
        query = {"fieldManager": names.FIELD_MANAGER, "force": "true" if force else "false"}
        return self._request("PATCH", path, query, body=obj, content_type=_APPLY)

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> dict[str, Any]:
        # An apply body is serialised here, because the official client would walk it key by key.
        headers = {"Accept": accept, "Content-Type": content_type}
        payload: object = json.dumps(body) if content_type == _APPLY else body
        _, url, headers, _, _ = self._api.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params=headers,
            auth_settings=["BearerToken"],
        )
        try:
            answer = self._api.call_api(method, url, headers, payload, _request_timeout=self._timeout)
            data: bytes = answer.read()  # type: ignore[no-untyped-call]
        except kubernetes.client.ApiException as error:
            raise self._failed(method, error.status or 0, str(error.body or error.reason or error)) from None
        except HTTPError as error:
            raise self._failed(method, 0, f"no answer from the API server: {error}") from None
        if answer.status >= 400:
            raise self._failed(method, answer.status, data.decode(errors="replace"))
        API_REQUESTS.labels(method, "ok").inc()
        result: dict[str, Any] = json.loads(data) if data else {}
        return result

    @staticmethod
    def _failed(method: str, status: int, text: str) -> ApiError:
        """Build the error for a status code; its message is that of the Status object in `text`."""
        try:
            message = str(json.loads(text)["message"])
        except (ValueError, TypeError, KeyError):
            message = text[:500]
        match status:
            case 404:
                kind: type[ApiError] = NotFoundError
            case 409:
                kind = ConflictError
            case 401 | 403:
                kind = ForbiddenError
            case 0 | 429:
                kind = UnavailableError
            case _:
                kind = UnavailableError if status >= 500 else RefusedError
        API_REQUESTS.labels(method, str(status or "none")).inc()
        return kind(status, message)
