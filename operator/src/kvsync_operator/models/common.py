"""The parts that both custom resources share: the base model, bounded scalar types, and the pod template.

The CRDs are generated from the models (`kvsync_operator.manifests`). Therefore every field has a docstring, which
becomes its description; every string, list and map has a maximum size; and no field is a float or a number whose unit
is not part of its name.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic.alias_generators import to_camel


def rules(*pairs: tuple[str, str]) -> dict[str, Any]:
    """Return `json_schema_extra` with CEL validations, given as pairs of (rule, message)."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in pairs]}


def with_defaults() -> dict[str, Any]:
    """Return `json_schema_extra` that makes the API server fill in the defaults of an omitted object."""
    return {"default": {}}


class Model(BaseModel):
    """Base of all models: frozen, with camelCase names in YAML, and without unknown fields."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

Duration = Annotated[str, StringConstraints(pattern=r"^(0|[0-9]{1,9}(ms|s|m|h))$", max_length=11)]
"""An integer and its unit, such as `500ms`, `10s`, `5m` or `1h`, or `0`."""

Port = Annotated[int, Field(ge=1024, le=65535)]
"""A TCP port on which an unprivileged process may listen."""

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
    """Convert a `Duration` to seconds: `"500ms"` is 0.5, `"0"` is 0.0."""
    for unit in ("ms", "s", "m", "h"):
        if text.endswith(unit):
            return int(text.removesuffix(unit)) * _UNIT_S[unit]
    return float(text)


class EnvVar(Model):
    """An environment variable of the container."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
    """Name of the variable."""
    value: Annotated[str, StringConstraints(max_length=4096)] = ""
    """Value of the variable; references such as `$(NAME)` follow the rules of Kubernetes."""


class Toleration(Model):
    """A taint that the pods tolerate, with the fields of a Kubernetes toleration."""

    key: Annotated[str, StringConstraints(max_length=317)] | None = None
    """Key of the taint. Without a key every taint matches, and the operator must be `Exists`."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """How the value is compared."""
    value: Annotated[str, StringConstraints(max_length=63)] | None = None
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint. Without an effect every effect matches."""
    toleration_seconds: Annotated[int, Field(ge=0, le=86400)] | None = None
    """How long a `NoExecute` taint is tolerated, in seconds."""


class ResourceRequirements(Model):
    """Compute resources of the container."""

    requests: Annotated[dict[str, Quantity], Field(max_length=8)] = Field(default_factory=dict)
    """Guaranteed amount of each resource."""
    limits: Annotated[dict[str, Quantity], Field(max_length=8)] = Field(default_factory=dict)
    """Upper limit of each resource."""


class PodTemplate(Model):
    """How and where the pods run. The security settings of the pods are fixed and cannot be changed here."""

    image: Annotated[str, StringConstraints(pattern=r"^[^\s]+$", max_length=512)] | None = None
    """Container image. By default the image that the operator was installed with."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When the image is pulled."""
    image_pull_secrets: Annotated[
        list[Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]],
        Field(max_length=8),
    ] = Field(default_factory=list)
    """Names of the secrets, in the same namespace, that are used to pull the image."""
    resources: ResourceRequirements | None = None
    """Compute resources of the container. The default requests are small and suit a test cluster."""
    labels: Annotated[dict[LabelName, LabelValue], Field(max_length=32)] = Field(default_factory=dict)
    """Additional labels of the pods. Labels that the operator sets take precedence."""
    annotations: Annotated[
        dict[LabelName, Annotated[str, StringConstraints(max_length=4096)]], Field(max_length=32)
    ] = Field(default_factory=dict)
    """Additional annotations of the pods. Annotations that the operator sets take precedence."""
    node_selector: Annotated[dict[LabelName, LabelValue], Field(max_length=32)] = Field(default_factory=dict)
    """Labels that a node must have to run the pods."""
    tolerations: Annotated[list[Toleration], Field(max_length=16)] = Field(default_factory=list)
    """Taints that the pods tolerate."""
    env: Annotated[list[EnvVar], Field(max_length=64, json_schema_extra={"x-list-map-keys": ["name"]})] = Field(
        default_factory=list
    )
    """Additional environment variables. Variables that the operator sets cannot be replaced."""
    priority_class_name: Annotated[str, StringConstraints(max_length=253)] | None = None
    """Name of the PriorityClass of the pods."""


class Condition(Model):
    """A Kubernetes condition: one aspect of the observed state."""

    type: Annotated[str, StringConstraints(pattern=r"^[A-Za-z]+$", max_length=64)]
    """Type of the condition: `Ready`, `Progressing`, `Degraded` or `Synced`."""
    status: Literal["True", "False", "Unknown"]
    """Whether the condition holds."""
    reason: Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9]*$", max_length=128)]
    """Reason for the status as one word, for programs."""
    message: Annotated[str, StringConstraints(max_length=2048)] = ""
    """Explanation of the status as a sentence, for people."""
    observed_generation: Annotated[int, Field(ge=0)] = 0
    """Generation of the resource to which the condition applies."""
    last_transition_time: Annotated[
        str, StringConstraints(max_length=32), WithJsonSchema({"type": "string", "format": "date-time"})
    ]
    """When the status of the condition last changed."""


def duplicates(names: Sequence[str]) -> list[str]:
    """Return the names that occur more than once, sorted."""
    return sorted({name for name in names if names.count(name) > 1})
