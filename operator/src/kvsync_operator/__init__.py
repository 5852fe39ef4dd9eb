"""The operator, which runs mock engines and prefix indexes from custom resources.

- `models/`: the specs of the resources, the only source of the CRDs
- `objects/`: the Kubernetes objects of a resource
- `reconcile/`: what one pass does, from what it has observed
- `handlers.py`, `running.py`: the process that serves a cluster, `kvsync-operator`

The first three need no cluster: `kvsync up` uses them to run a resource on one machine. Nothing is imported here, so
that `kvsync-operator` handles Ctrl-C before it imports anything else.
"""
