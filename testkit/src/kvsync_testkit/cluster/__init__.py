"""Clusters: a small API server for reconcile tests, and a connection to a real one with a namespace per test.

`FakeKube` serves objects, watches and faults over real HTTP, so an operator runs against it with its own clients.
`Kube` is the connection to a real cluster; the fixtures `kube` and `kube_namespace` of the pytest plugin use it.
"""

from kvsync_testkit.cluster.answering import Asked, Fault, Watch
from kvsync_testkit.cluster.dumping import dump_namespace
from kvsync_testkit.cluster.fakekube import FakeKube
from kvsync_testkit.cluster.namespaces import TestNamespaces, sweep_namespaces
from kvsync_testkit.cluster.store import Change, RefusedError, Store
from kvsync_testkit.cluster.waits import wait_until, wait_while
from kvsync_testkit.kube import Answer, Kube, KubeError, Object, condition, find_kubeconfig, is_ready

__all__ = [
    "Answer",
    "Asked",
    "Change",
    "FakeKube",
    "Fault",
    "Kube",
    "KubeError",
    "Object",
    "RefusedError",
    "Store",
    "TestNamespaces",
    "Watch",
    "condition",
    "dump_namespace",
    "find_kubeconfig",
    "is_ready",
    "sweep_namespaces",
    "wait_until",
    "wait_while",
]
