"""Checks of an installation on a cluster, from the API server to each publisher.

Every check is a function of the answers of the API server; `kube` makes the requests.
"""

from collections.abc import Iterator
from typing import Any

from kvsync.checks.finding import Finding
from kvsync.checks.kube import Kube, KubeError, service_path
from kvsync_operator import names

API = f"/apis/{names.API_VERSION}"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
OPERATOR_QUERY = {"labelSelector": "app.kubernetes.io/name=kvsync-operator"}
PODS_QUERY = {"labelSelector": "app.kubernetes.io/part-of=kvsync"}
PERMISSIONS = (
    ("list", names.GROUP, "mockengines"),
    ("list", names.GROUP, "prefixindexes"),
    ("patch", "apps", "deployments"),
    ("patch", "", "services"),
    ("patch", "", "configmaps"),
    ("patch", "rbac.authorization.k8s.io", "rolebindings"),
)
INSTALL_CRDS = "helm install kvsync-crds charts/kvsync-crds"
INSTALL = "helm install kvsync charts/kvsync"
PROVIDE_IMAGE = "build the image (make build-images) and load or push it, or set images.registry"
POD_STEPS = {
    "ImagePullBackOff": PROVIDE_IMAGE,
    "ErrImagePull": PROVIDE_IMAGE,
    "ErrImageNeverPull": "load the image into the node (kind load docker-image)",
    "CrashLoopBackOff": "kubectl logs --previous shows why the container ends",
    "CreateContainerConfigError": "a ConfigMap or a key is missing; kubectl describe shows which",
    "Unschedulable": "no node is suitable; check resources, nodeSelector and tolerations in the template",
}
PUBLISHER_STEPS = {
    "connecting": "check that the pod runs and that network policies admit the index to the event port",
    "stale": "the publisher is silent and does not respond; check the pod and the network",
    "quarantined": "it sent invalid data; compare its version with events.wireVersion; the index tries it again later",
    "gap": "events were lost, and a replay is running; if the state persists, check that the replay port is reachable",
    "restart": "its process has restarted; its blocks return as the engine announces them",
    "replaying": "a replay is running; if the state persists, check that the replay port is reachable",
    "resyncing": "another replay is running; if the state persists, check that the replay port is reachable",
}


def check_cluster(kube: Kube) -> Iterator[Finding]:
    """Run every check. Without an API server or the CRDs the remaining checks are skipped."""
    try:
        version = kube.get("/version")
    except KubeError as error:
        yield Finding(
            "problem", "API server", str(error), "check KUBECONFIG, and that the cluster runs (make cluster-up)"
        )
        return
    yield Finding("ok", "API server", str(version.get("gitVersion", "answers")))
    crds = list(_crds(kube))
    yield from crds
    if any(finding.level == "problem" for finding in crds):
        return
    yield from _operator(kube)
    yield from _resources(kube, "mockengines")
    yield from _resources(kube, "prefixindexes")
    yield from _pods(kube)
    yield from _publishers(kube)


def _crds(kube: Kube) -> Iterator[Finding]:
    for plural in names.PLURALS.values():
        name = f"{plural}.{names.GROUP}"
        try:
            crd = kube.get(f"{CRDS}/{name}")
        except KubeError as error:
            if error.status == 403:
                yield Finding(
                    "note", f"CRD {name}", "this account may not read CRDs", "use an account that may read them"
                )
            else:
                yield Finding("problem", f"CRD {name}", "is not installed", INSTALL_CRDS)
            continue
        served = [version["name"] for version in crd["spec"]["versions"] if version["served"]]
        if not _condition(crd, "Established"):
            yield Finding("problem", f"CRD {name}", "is not established", f"kubectl describe crd {name}")
        elif names.VERSION not in served:
            what = f"serves {', '.join(served)}, not {names.VERSION}"
            yield Finding("problem", f"CRD {name}", what, "helm upgrade kvsync-crds charts/kvsync-crds")
        else:
            yield Finding("ok", f"CRD {name}", f"serves {', '.join(served)}")


def _operator(kube: Kube) -> Iterator[Finding]:
    try:
        deployments = kube.get("/apis/apps/v1/deployments", OPERATOR_QUERY)["items"]
    except KubeError as error:
        yield Finding("note", "operator", f"cannot be found: {error}", "use an account that may list deployments")
        return
    if not deployments:
        yield Finding("problem", "operator", "is not installed, so resources have no effect", INSTALL)
    for deployment in deployments:
        metadata = deployment["metadata"]
        what = f"operator {metadata['namespace']}/{metadata['name']}"
        image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
        ready, wanted = deployment["status"].get("readyReplicas", 0), deployment["spec"].get("replicas", 1)
        if ready < wanted or not wanted:
            step = f"kubectl -n {metadata['namespace']} describe deployment {metadata['name']}"
            yield Finding("problem", what, f"{ready} of {wanted} ready ({image})", step)
        else:
            yield Finding("ok", what, f"ready ({image})")
        yield from _permissions(kube, deployment)


def _permissions(kube: Kube, deployment: dict[str, Any]) -> Iterator[Finding]:
    namespace = deployment["metadata"]["namespace"]
    account = deployment["spec"]["template"]["spec"].get("serviceAccountName", "default")
    user = f"system:serviceaccount:{namespace}:{account}"
    try:
        missing = [
            f"{verb} {resource}"
            for verb, group, resource in PERMISSIONS
            if not kube.may(user, {"namespace": namespace, "verb": verb, "group": group, "resource": resource})
        ]
    except KubeError as error:
        yield Finding(
            "note",
            "permissions of the operator",
            f"cannot be checked: {error}",
            "use an account that may review access",
        )
        return
    if missing:
        step = "helm upgrade kvsync charts/kvsync --set rbac.create=true"
        yield Finding(
            "problem", "permissions of the operator", f"{account} in {namespace} may not {', '.join(missing)}", step
        )
    else:
        yield Finding("ok", "permissions of the operator", f"{account} in {namespace} has the required permissions")


def _resources(kube: Kube, plural: str) -> Iterator[Finding]:
    try:
        items = kube.get(f"{API}/{plural}")["items"]
    except KubeError as error:
        yield Finding("note", plural, f"cannot be listed: {error}", "use an account that may list them")
        return
    if not items:
        yield Finding("note", plural, "there are none", "kubectl apply -f config/samples/single.yaml")
    for item in items:
        metadata, status = item["metadata"], item.get("status") or {}
        what = f"{item.get('kind', plural)} {metadata['namespace']}/{metadata['name']}"
        step = f"kubectl -n {metadata['namespace']} describe {plural}.{names.GROUP} {metadata['name']}"
        if not status.get("conditions"):
            yield Finding("problem", what, "has no status", "check that an operator runs and serves this namespace")
        elif status.get("observedGeneration", 0) < metadata.get("generation", 0):
            yield Finding(
                "note", what, "its current spec has not been processed", "wait, then check the logs of the operator"
            )
        else:
            yield from _conditions(what, item, step)


def _conditions(what: str, item: dict[str, Any], step: str) -> Iterator[Finding]:
    bad = [
        condition
        for condition in item["status"]["conditions"]
        if (condition["type"] in ("Ready", "Synced") and condition["status"] != "True")
        or (condition["type"] == "Degraded" and condition["status"] == "True")
    ]
    for condition in bad:
        detail = f"{condition['type']} is {condition['status']}: {condition.get('message') or condition.get('reason')}"
        yield Finding("problem", what, detail, step)
    if not bad:
        yield Finding("ok", what, "ready")


def _pods(kube: Kube) -> Iterator[Finding]:
    try:
        pods = kube.get("/api/v1/pods", PODS_QUERY)["items"]
    except KubeError as error:
        yield Finding("note", "pods", f"cannot be listed: {error}", "use an account that may list pods")
        return
    broken = [pod for pod in pods if not _condition(pod, "Ready") and not pod["metadata"].get("deletionTimestamp")]
    for pod in broken:
        metadata = pod["metadata"]
        reason, detail = _why(pod)
        describe = f"kubectl -n {metadata['namespace']} describe pod {metadata['name']}"
        name = f"pod {metadata['namespace']}/{metadata['name']}"
        yield Finding("problem", name, detail, POD_STEPS.get(reason, describe))
    if pods and not broken:
        yield Finding("ok", "pods", f"{len(pods)} ready")


def _why(pod: dict[str, Any]) -> tuple[str, str]:
    """Return why a pod is not ready, as a reason and a sentence."""
    status = pod.get("status") or {}
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting")
        if waiting:
            detail = f"{waiting.get('reason')}: {waiting.get('message') or container.get('image', '')}"
            return str(waiting.get("reason")), " ".join(detail.split())[:300]
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] != "True":
            return str(condition.get("reason")), f"is not scheduled: {condition.get('message', '')}"
    return "", f"{status.get('phase', 'Unknown')}, not ready"


def _publishers(kube: Kube) -> Iterator[Finding]:
    """Ask each index for its publishers, through the API server."""
    try:
        items = kube.get(f"{API}/prefixindexes")["items"]
    except KubeError:
        return
    for item in items:
        namespace, name = item["metadata"]["namespace"], item["metadata"]["name"]
        what = f"index {namespace}/{name}"
        path = service_path(namespace, names.index_name(name), names.INDEX_PORT, "/v1/publishers")
        try:
            rows = kube.get(path)["publishers"]
        except KubeError as error:
            yield Finding(
                "problem", what, f"does not answer: {error}", f"kubectl -n {namespace} get pods,endpointslices"
            )
            continue
        broken = [row for row in rows if row["state"] != "live"]
        for row in broken:
            detail = f"is {row['state']}: {row.get('reason') or 'no reason given'}"
            yield Finding("problem", f"{what}, publisher {row['name']}", detail, PUBLISHER_STEPS.get(row["state"], ""))
        if not rows:
            step = "check the labels of the engines against spec.selector, and their namespace against spec.namespaces"
            yield Finding("problem", what, "has no publishers", step)
        elif not broken:
            yield Finding("ok", what, f"{len(rows)} publishers live, {sum(row['blocks'] for row in rows):,} blocks")


def _condition(obj: dict[str, Any], kind: str) -> bool:
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return any(condition["type"] == kind and condition["status"] == "True" for condition in conditions)
