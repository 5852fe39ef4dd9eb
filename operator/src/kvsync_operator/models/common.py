"""What both custom resources are made of: the base model, bounded scalar types, the pod template.

The models are the one source of the CRDs (`kvsync_operator.manifests`), so every field carries its
documentation, every string, list and map a maximum, and nothing is a float or a bare number of an
unspoken unit.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic.alias_generators import to_camel

__all__ = [
    "Condition",
    "Duration",
    "EnvVar",
    "LabelName",
    "LabelValue",
    "Model",
    "PodTemplate",
    "Port",
    "Quantity",
    "ResourceRequirements",
    "Toleration",
    "duplicates",
    "duration_seconds",
    "rules",
    "with_defaults",
]


def rules(*pairs: tuple[str, str]) -> dict[str, Any]:
    """`json_schema_extra` with CEL validations: pairs of (rule, message)."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in pairs]}


def with_defaults() -> dict[str, Any]:
    """`json_schema_extra` of a field whose own defaults the API server fills in when it is left out."""
    return {"default": {}}


class Model(BaseModel):
    """Base of all resource models: frozen, camelCase in YAML, unknown fields refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

Duration = Annotated[str, StringConstraints(pattern=r"^(0|[0-9]{1,9}(ms|s|m|h))$", max_length=11)]
"""A whole number and its unit, such as `500ms`, `10s`, `5m`, `1h`, or `0`."""

Port = Annotated[int, Field(ge=1024, le=65535)]
"""A TCP port a process without privileges may listen on."""

LabelName = Annotated[
    str,
    StringConstraints(
        pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$", max_length=317
    ),
]
LabelValue = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", max_length=63)]

_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"


def _text_of_number(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Quantity = Annotated[
    str,
    BeforeValidator(_text_of_number),
    StringConstraints(pattern=_QUANTITY, max_length=32),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": _QUANTITY, "maxLength": 32}),
]
"""A Kubernetes quantity, such as `500m` or `1Gi`."""


def duration_seconds(text: str) -> float:
    """Seconds of a `Duration`: `"500ms"` -> 0.5, `"0"` -> 0.0."""
    for unit in ("ms", "s", "m", "h"):
        if text.endswith(unit):
            return int(text.removesuffix(unit)) * _UNIT_S[unit]
    return float(text)


class EnvVar(Model):
    """One environment variable of the container."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
    """Name of the variable."""
    value: Annotated[str, StringConstraints(max_length=4096)] = ""
    """Its value, as it is."""


class Toleration(Model):
    """A taint the pods put up with; the fields are those of a pod's toleration."""

    key: Annotated[str, StringConstraints(max_length=317)] | None = None
    """Taint key; without one, every key (then the operator must be `Exists`)."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """How the value is compared."""
    value: Annotated[str, StringConstraints(max_length=63)] | None = None
    """Taint value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Taint effect; without one, every effect."""
    toleration_seconds: Annotated[int, Field(ge=0, le=86400)] | None = None
    """For how many seconds a NoExecute taint is tolerated."""


class ResourceRequirements(Model):
    """What a container asks for and may use."""

    requests: Annotated[dict[str, Quantity], Field(max_length=8)] = Field(default_factory=dict)
    """Guaranteed amounts by resource name."""
    limits: Annotated[dict[str, Quantity], Field(max_length=8)] = Field(default_factory=dict)
    """Upper bounds by resource name."""


class PodTemplate(Model):
    """How the pods are run, beyond what they do. Security settings are fixed and not part of it."""

    image: Annotated[str, StringConstraints(pattern=r"^[^\s]+$", max_length=512)] | None = None
    """Container image; without one, the image the operator was installed with."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When the image is pulled."""
    image_pull_secrets: Annotated[
        list[Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]],
        Field(max_length=8),
    ] = Field(default_factory=list)
    """Names of secrets in the same namespace with which the image is pulled."""
    resources: ResourceRequirements | None = None
    """Container resources; without them, small requests that suit a test cluster."""
    labels: Annotated[dict[LabelName, LabelValue], Field(max_length=32)] = Field(default_factory=dict)
    """Additional pod labels. The operator's own labels win."""
    annotations: Annotated[
        dict[LabelName, Annotated[str, StringConstraints(max_length=4096)]], Field(max_length=32)
    ] = Field(default_factory=dict)
    """Additional pod annotations. The operator's own annotations win."""
    node_selector: Annotated[dict[LabelName, LabelValue], Field(max_length=32)] = Field(default_factory=dict)
    """Labels a node must have."""
    tolerations: Annotated[list[Toleration], Field(max_length=16)] = Field(default_factory=list)
    """Taints the pods put up with."""
    env: Annotated[list[EnvVar], Field(max_length=64, json_schema_extra={"x-list-map-keys": ["name"]})] = Field(
        default_factory=list
    )
    """Additional environment variables. Those the operator sets itself cannot be replaced."""
    priority_class_name: Annotated[str, StringConstraints(max_length=253)] | None = None
    """PriorityClass of the pods."""


class Condition(Model):
    """One observation about the resource, in the form all Kubernetes conditions have."""

    type: Annotated[str, StringConstraints(pattern=r"^[A-Za-z]+$", max_length=64)]
    """What it is about: `Ready`, `Progressing`, `Degraded` or `Synced`."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9]*$", max_length=128)]
    """One word for machines."""
    message: Annotated[str, StringConstraints(max_length=2048)] = ""
    """A sentence for people."""
    observed_generation: Annotated[int, Field(ge=0)] = 0
    """Generation of the resource this was decided for."""
    last_transition_time: Annotated[
        str, StringConstraints(max_length=32), WithJsonSchema({"type": "string", "format": "date-time"})
    ]
    """When the status last changed."""


def duplicates(names: Sequence[str]) -> list[str]:
    """The names that occur more than once, each once, sorted."""
    return sorted({name for name in names if names.count(name) > 1})
