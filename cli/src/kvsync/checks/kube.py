"""The API requests of `kvsync doctor --cluster`, through the official client. All answers are plain JSON."""

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
    """The API server refused a request or did not answer. `status` is the HTTP status code, 0 without an answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Kube(Protocol):
    """The part of the Kubernetes API that the checks use."""

    def get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return the answer to GET `path`; raise `KubeError` if there is none."""
        ...

    def may(self, user: str, attributes: Mapping[str, str]) -> bool:
        """Return whether `user` has the permission `attributes`; raise `KubeError` if that cannot be reviewed."""
        ...


def service_path(namespace: str, service: str, port: int, path: str) -> str:
    """Return the path on which the API server forwards a request to a Service."""
    return f"/api/v1/namespaces/{quote(namespace)}/services/{quote(service)}:{port}/proxy{path}"


class KubeApi:
    """The cluster that KUBECONFIG names, otherwise the one in which the process runs."""

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
        """Return the answer to GET `path`."""
        return self._request("GET", path, query)

    def may(self, user: str, attributes: Mapping[str, str]) -> bool:
        """Ask for a SubjectAccessReview and return whether the permission is granted."""
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
            raise KubeError(0, f"{path}: the answer is not JSON") from None
        return decoded


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, TypeError, KeyError):
        return text[:300]
