"""Names on which other programs rely: the API group, labels, annotations, ports, and the names of objects.

All of them are contracts. The index discovers pods by the `kvsync.dev` labels and annotations, AIBrix and llm-d
discover them by their own, and an object can only be renamed by deleting it.
"""

import hashlib
import re
from typing import Final

GROUP: Final = "kvsync.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
MOCK_ENGINE: Final = "MockEngine"
PREFIX_INDEX: Final = "PrefixIndex"
PLURALS: Final = {MOCK_ENGINE: "mockengines", PREFIX_INDEX: "prefixindexes"}

FIELD_MANAGER: Final = "kvsync-operator"

# Labels of every object that the operator creates.
LABEL_NAME: Final = "app.kubernetes.io/name"
LABEL_INSTANCE: Final = "app.kubernetes.io/instance"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
LABEL_PART_OF: Final = "app.kubernetes.io/part-of"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_ENGINE: Final = "kvsync.dev/engine"
LABEL_INDEX: Final = "kvsync.dev/index"
# On an object in another namespace than its PrefixIndex, because an owner reference cannot cross namespaces.
LABEL_INDEX_NAMESPACE: Final = "kvsync.dev/index-namespace"

# Labels of engine pods.
LABEL_KV_EVENTS: Final = "kvsync.dev/kv-events"
LABEL_AIBRIX_MODEL: Final = "model.aibrix.ai/name"
LABEL_AIBRIX_PORT: Final = "model.aibrix.ai/port"
LABEL_AIBRIX_EVENTS: Final = "model.aibrix.ai/kv-events-enabled"
LABEL_LLMD_SERVING: Final = "llm-d.ai/inference-serving"

# Annotations of engine pods: what the index needs to know to follow them.
ANNOTATION_MODEL: Final = "kvsync.dev/model"
ANNOTATION_HTTP_PORT: Final = "kvsync.dev/http-port"
ANNOTATION_EVENTS_PORT: Final = "kvsync.dev/events-port"
ANNOTATION_REPLAY_PORT: Final = "kvsync.dev/replay-port"
ANNOTATION_RANKS: Final = "kvsync.dev/data-parallel-size"
ANNOTATION_TOPIC: Final = "kvsync.dev/topic"
ANNOTATION_DEBUG: Final = "kvsync.dev/debug"
ANNOTATION_CURVE_KEY: Final = "kvsync.dev/curve-server-key"

# Annotations of the objects that the operator creates.
ANNOTATION_CONFIG_HASH: Final = "kvsync.dev/config-hash"
ANNOTATION_SPEC_HASH: Final = "kvsync.dev/spec-hash"

HTTP_PORT: Final = 8000
INDEX_PORT: Final = 8090

# Ports of an endpoint picker, as those of the Gateway API's reference picker: ext_proc, gRPC health, metrics.
PICKER_PORT: Final = 9002
PICKER_HEALTH_PORT: Final = 9003
PICKER_METRICS_PORT: Final = 9090
PICKER_PORTS: Final = (PICKER_PORT, PICKER_HEALTH_PORT, PICKER_METRICS_PORT)

POOL_GROUP: Final = "inference.networking.k8s.io"
POOL_API_VERSION: Final = f"{POOL_GROUP}/v1"
POOL: Final = "InferencePool"

# A user and group that no image defines and that owns no files.
RUN_AS_USER: Final = 65532

# Longest name of a custom resource. With the longest suffix and the 11 characters that Kubernetes appends to the name
# of a pod's controller, it fits into a label value of 63 characters.
MAX_NAME: Final = 40

_NOT_LABEL = re.compile(r"[^A-Za-z0-9._-]+")


def engine_name(name: str) -> str:
    """Return the name of every object of the MockEngine `name`."""
    return f"{name}-engine"


def index_name(name: str) -> str:
    """Return the name of every object of the PrefixIndex `name`, except the Services of its router and its picker."""
    return f"{name}-index"


def router_name(name: str) -> str:
    """Return the name of the router Service of the PrefixIndex `name`."""
    return f"{name}-router"


def picker_name(name: str) -> str:
    """Return the name of the endpoint picker Service of the PrefixIndex `name`."""
    return f"{name}-epp"


def watch_role_name(name: str, namespace: str, target: str) -> str:
    """Return the name of the Role by which the PrefixIndex `namespace/name` may watch pods in namespace `target`.

    In another namespace it ends in a hash of both names of the PrefixIndex, because several may have a Role there, and
    because names that are joined by `-` alone can be equal for different pairs. No Role of its own namespace ends so.
    """
    if namespace == target:
        return index_name(name)
    digest = hashlib.sha256(f"{namespace}/{name}".encode()).hexdigest()[:10]
    return f"{index_name(name)}-{namespace}-{digest}"


def label_value(text: str) -> str:
    """Convert `text` to a label value: at most 63 characters of `[A-Za-z0-9._-]`, alphanumeric at both ends.

    A text that has to be shortened ends in a hash of the whole text, so that two long names remain different.
    """
    clean = _NOT_LABEL.sub("-", text).strip("-._")
    if len(clean) > 63:
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        clean = f"{clean[:54].rstrip('-._')}-{digest}"
    return clean
