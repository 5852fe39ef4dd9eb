"""Kubernetes discovery: pods with a matching label become publishers, and are removed with their pods.

- `pods`: from one pod to its publishers; `command` and `shell` find its engine, `arguments` and `ranks` read its flags
- `podfields`: the fields of a pod that are read
- `sources`: what an engine itself says about its endpoints; `asking` asks it
- `limits`: what one pod may make the index read
- `table`: the pods of one watch, and what changes for the index
- `watcher`: lists and watches objects through the API server
- `pool` reads an InferencePool, `poolpods` follows its pods, and `poolendpoints` lists its addresses for fronts
- `service`: starts one watcher per namespace, or those of a pool; `connecting` finds the credentials
"""

from kvsync_indexer.discovery.podfields import PodError
from kvsync_indexer.discovery.pods import pod_publishers
from kvsync_indexer.discovery.service import KubernetesDiscovery
from kvsync_indexer.discovery.table import PodTable
from kvsync_indexer.discovery.watcher import PodWatcher

__all__ = ["KubernetesDiscovery", "PodError", "PodTable", "PodWatcher", "pod_publishers"]
