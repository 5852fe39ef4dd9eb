"""The few reads `kvsync doctor --cluster` makes, over the official client; every answer is plain JSON."""

import json
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import quote

import kubernetes
from kubernetes.client import ApiClient, ApiException
from urllib3.exceptions import HTTPError

from kvsync.errors import KvsyncError

TIMEOUT_S = (5.0, 15.0)


class KubeError(KvsyncError):
    """The API server refused, or did not answer; `status` is 0 without an answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Kube(Protocol):
    """What the checks need of a cluster."""

    def get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """GET a path of the API; KubeError."""
        ...

    def may(self, user: str, attributes: Mapping[str, str]) -> bool:
        """Whether `user` is allowed what `attributes` say; KubeError when we may not ask."""
        ...


def service_path(namespace: str, service: str, port: int, path: str) -> str:
    """The path on which the API server passes a request on to a Service."""
    return f"/api/v1/namespaces/{quote(namespace)}/services/{quote(service)}:{port}/proxy{path}"


class KubeApi:
    """The cluster that KUBECONFIG, or the pod we run in, names."""

    def __init__(self) -> None:
        configuration = kubernetes.client.Configuration()
        try:
            kubernetes.config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except (kubernetes.config.ConfigException, OSError) as error:
            try:
                kubernetes.config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            except kubernetes.config.ConfigException:
                raise KubeError(0, f"no cluster is configured: {error}") from None
        configuration.retries = False
        self.host: str = configuration.host
        self._api = ApiClient(configuration)

    def get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """GET a path of the API."""
        return self._request("GET", path, query)

    def may(self, user: str, attributes: Mapping[str, str]) -> bool:
        """A SubjectAccessReview."""
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "resourceAttributes": dict(attributes)},
        }
        answer = self._request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body=body)
        return bool(answer.get("status", {}).get("allowed"))

    def _request(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: object = None
    ) -> dict[str, Any]:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        _, url, headers, _, _ = self._api.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params=headers,
            auth_settings=["BearerToken"],
        )
        try:
            answer = self._api.call_api(method, url, headers, body, _request_timeout=TIMEOUT_S)
            data: bytes = answer.read()  # type: ignore[no-untyped-call]
        except ApiException as error:
            raise KubeError(error.status or 0, _message(str(error.body or error.reason))) from None
        except HTTPError as error:
            raise KubeError(0, " ".join(str(error).split())) from None
        if answer.status >= 400:
            raise KubeError(answer.status, _message(data.decode(errors="replace")))
        try:
            decoded: dict[str, Any] = json.loads(data)
        except ValueError:
            raise KubeError(0, f"{path}: the answer is no JSON") from None
        return decoded


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, TypeError, KeyError):
        return text[:300]
