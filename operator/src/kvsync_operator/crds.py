"""The CustomResourceDefinitions, built from the models."""

from dataclasses import dataclass
from typing import Any

from kvsync_operator import names
from kvsync_operator.models.common import Model
from kvsync_operator.models.mockengine import MockEngineSpec, MockEngineStatus
from kvsync_operator.models.prefixindex import PrefixIndexSpec, PrefixIndexStatus
from kvsync_operator.models.schema import structural_schema


@dataclass(frozen=True, slots=True)
class Kind:
    """The names, models and printer columns of one custom resource."""

    kind: str
    plural: str
    singular: str
    short: str
    description: str
    spec: type[Model]
    status: type[Model]
    columns: tuple[tuple[str, str, str, int], ...]
    """Printer columns: (name, type, JSON path, priority)."""


_READY = ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', 0)
_DESIRED = ("Desired", "integer", ".spec.replicas", 0)
_AGE = ("Age", "date", ".metadata.creationTimestamp", 0)
_MESSAGE = ("Message", "string", '.status.conditions[?(@.type=="Ready")].message', 1)

KINDS = (
    Kind(
        names.MOCK_ENGINE,
        names.PLURALS[names.MOCK_ENGINE],
        "mockengine",
        "me",
        "A set of pods that behave like vLLM servers without a GPU, with their API, scheduler, KV cache and KV events.",
        MockEngineSpec,
        MockEngineStatus,
        (_READY, _DESIRED, _AGE, ("Model", "string", ".spec.model.name", 1), _MESSAGE),
    ),
    Kind(
        names.PREFIX_INDEX,
        names.PLURALS[names.PREFIX_INDEX],
        "prefixindex",
        "pi",
        "An index of the prefixes that each engine holds, kept in sync by the engines' KV events, and its router.",
        PrefixIndexSpec,
        PrefixIndexStatus,
        (
            _READY,
            ("Synced", "string", '.status.conditions[?(@.type=="Synced")].status', 0),
            ("Live", "integer", ".status.publishers.live", 0),
            _DESIRED,
            _AGE,
            ("Publishers", "integer", ".status.publishers.total", 1),
            _MESSAGE,
        ),
    ),
)


def build_crd(kind: Kind) -> dict[str, Any]:
    """Build the CustomResourceDefinition of `kind`."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{names.GROUP}",
            "labels": {names.LABEL_NAME: "kvsync", names.LABEL_PART_OF: "kvsync"},
        },
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.singular,
                "shortNames": [kind.short],
                "categories": ["kvsync"],
            },
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _root_schema(kind)},
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": [
                        {"name": name, "type": type_, "jsonPath": path, **({"priority": priority} if priority else {})}
                        for name, type_, path, priority in kind.columns
                    ],
                }
            ],
        },
    }


def _root_schema(kind: Kind) -> dict[str, Any]:
    return {
        "type": "object",
        "description": kind.description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "maxLength": 64},
            "kind": {"type": "string", "maxLength": 64},
            "metadata": {"type": "object"},
            "spec": structural_schema(kind.spec),
            "status": structural_schema(kind.status),
        },
        "x-kubernetes-validations": [
            {
                "rule": f"self.metadata.name.size() <= {names.MAX_NAME}"
                " && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
                "message": "metadata.name must consist of lower-case letters, digits and '-', begin with a letter,"
                f" and have at most {names.MAX_NAME} characters",
            }
        ],
    }
