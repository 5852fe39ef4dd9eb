"""Kubernetes discovery: engine pods by label become publishers, and leave when their pods do.

`pods` reads one pod, `arguments` its command line, `table` tells the index what changed, `watcher` talks to the API
server, `service` starts one watcher a namespace.
"""

from kvsync_indexer.discovery.pods import PodError, pod_publishers
from kvsync_indexer.discovery.service import KubernetesDiscovery
from kvsync_indexer.discovery.table import PodTable
from kvsync_indexer.discovery.watcher import PodWatcher

__all__ = ["KubernetesDiscovery", "PodError", "PodTable", "PodWatcher", "pod_publishers"]
