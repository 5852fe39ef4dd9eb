"""The connection of discovery to the API server: credentials, and the namespace of the process."""

from pathlib import Path

from kubernetes import client, config
from kubernetes.config.config_exception import ConfigException

from kvsync_indexer.errors import ConfigError

_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def connect(flag: str) -> client.CoreV1Api:
    """A client with the credentials of the pod or of KUBECONFIG. Raises ConfigError, which names `flag`."""
    try:
        config.load_incluster_config()  # type: ignore[no-untyped-call]
    except ConfigException:
        try:
            config.load_kube_config()  # type: ignore[no-untyped-call]
        except (ConfigException, OSError) as error:
            problem = " ".join(str(error).split())
            raise ConfigError(f"{flag}: no service account and no usable kubeconfig: {problem}") from None
    settings = client.Configuration.get_default_copy()
    settings.retries = False
    return client.CoreV1Api(client.ApiClient(settings))


def own_namespace() -> str:
    """The namespace of the pod or, outside of a cluster, that of the kubeconfig."""
    try:
        return _OWN_NAMESPACE.read_text().strip()
    except OSError:
        pass
    try:
        _, active = config.list_kube_config_contexts()  # type: ignore[no-untyped-call]
        return str((active.get("context") or {}).get("namespace") or "default")
    except (ConfigException, OSError, AttributeError):
        return "default"
