"""Add `partitionBehavior` to the CRDs that hold a NetworkChaos spec. Reads and writes JSON lists of CRDs.

The API module that the Go proxy serves is a few days newer than the chart's CRDs: its webhook gives every NetworkChaos
a default `spec.partitionBehavior`, which the older schema prunes, and from then on the webhook denies every update of
the object as a change of its spec. The experiment is accepted and never acted on. The field is what the newer CRD has.

    kubectl get crd -o json networkchaos.chaos-mesh.org … | python3 patch_crds.py | kubectl replace -f -
"""

import json
import sys

FIELD = {"type": "string", "enum": ["drop", "reject"], "default": "drop"}
KEPT_BY_THE_SERVER = ("managedFields", "uid", "creationTimestamp", "generation")


def add_field(node: object) -> int:
    """Put the field into every network chaos schema below `node`; how many were changed."""
    if isinstance(node, list):
        return sum(map(add_field, node))
    if not isinstance(node, dict):
        return 0
    changed = sum(map(add_field, node.values()))
    properties = node.get("properties")
    if isinstance(properties, dict) and {"externalTargets", "targetDevice"} <= properties.keys():
        changed += "partitionBehavior" not in properties
        properties.setdefault("partitionBehavior", FIELD)
    return changed


def main() -> int:
    """Patch the CRDs on standard input."""
    listed = json.load(sys.stdin)
    changed = [crd for crd in listed["items"] if add_field(crd["spec"])]
    for crd in changed:
        crd.pop("status", None)
        for key in KEPT_BY_THE_SERVER:
            crd["metadata"].pop(key, None)
    json.dump({"apiVersion": "v1", "kind": "List", "items": changed}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
