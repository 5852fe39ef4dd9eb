"""Package: the charts are installed, tested, upgraded and uninstalled, and leave no objects behind."""

from e2e_engines import Engine
from e2e_index import Index
from e2e_install import CRDS

from kvsync_testkit.cluster import wait_until
from kvsync_testkit.cluster.dumping import KINDS

CLUSTER_KINDS = ["ClusterRole", "ClusterRoleBinding"]


def left_over(kube, namespace, release):
    """Return the objects of helm and of the operator that still exist, in the namespace and cluster-wide."""
    mine = f"app.kubernetes.io/instance={release}"
    return sorted(
        [(kind, item["metadata"]["name"]) for kind in [*KINDS, "Pod"] for item in kube.objects(kind, namespace)
         if item["metadata"]["name"] not in ("default", "kube-root-ca.crt")]
        + [(kind, item["metadata"]["name"]) for kind in CLUSTER_KINDS for item in kube.objects(kind, selector=mine)
           if item["metadata"]["name"].startswith(namespace)]
    )  # fmt: skip


def test_install_test_upgrade_and_uninstall_leave_nothing_behind(deploy, namespace, kube, installation):
    release = "trial"
    installation.set_replicas(0)  # the operator of the suite serves all namespaces, and must not serve this release
    try:
        chart = str(installation.root / "charts" / "kvsync")
        common = ["--namespace", namespace, "--wait", "--timeout", "180s", *installation.image_values()]
        installation.helm(
            "install",
            release,
            chart,
            *common,
            "--set",
            "sampleEngine.enabled=true",
            "--set",
            "sampleEngine.spec.replicas=2",
        )
        (index_object,) = kube.objects("PrefixIndex", namespace)
        index = Index(kube, namespace, index_object["metadata"]["name"])
        engine = Engine(kube, namespace, "sample")
        pods = engine.wait_ready(2)
        index.wait_ready()
        index.wait_live([pod.name for pod in pods])
        pods[0].complete(list(range(1000, 1160)), model="mock-model")
        index.wait_agrees(pods)
        installation.helm("test", release, "--namespace", namespace, "--timeout", "120s")

        installation.helm("upgrade", release, chart, *common, "--reuse-values", "--set", "sampleEngine.spec.replicas=1")
        engine.wait_ready(1)
        installation.helm("test", release, "--namespace", namespace, "--timeout", "120s")

        installation.helm("uninstall", release, "--namespace", namespace, "--wait")

        def nothing_is_left():
            left = left_over(kube, namespace, release)
            assert not left
            return True

        wait_until("nothing is left", nothing_is_left, deadline_s=90.0)
        for name in CRDS:
            assert kube.find("CustomResourceDefinition", name), "the CRDs remain because of the keep policy"
    finally:
        installation.helm("uninstall", release, "--namespace", namespace, "--ignore-not-found")
        installation.set_replicas(1)
