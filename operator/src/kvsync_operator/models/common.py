"""The parts that both custom resources share: the base model, bounded scalar types, and the pod template.

The CRDs are generated from the models (`kvsync_operator.manifests`). Therefore every field has a docstring, which
becomes its description; every string, list and map has a maximum size; and no field is a float or a number whose unit
is not part of its name.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from kvsync_operator.quantity import quantity_value


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
"""An integer and its unit, such as `500ms`, `10s`, `5m` or `1h`, or `0`. Combine it with `DurationBounds`."""


@dataclass(frozen=True, slots=True)
class DurationBounds:
    """Validates a duration in the model, and says the same to the API server as a CEL rule."""

    least: str
    most: str

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        rule = f"duration(self) >= duration('{self.least}') && duration(self) <= duration('{self.most}')"
        return handler(schema) | rules((rule, f"must be from {self.least} to {self.most}"))

    def _check(self, text: str) -> str:
        if not duration_seconds(self.least) <= duration_seconds(text) <= duration_seconds(self.most):
            raise ValueError(f"{text!r} must be from {self.least} to {self.most}")
        return text


Port = Annotated[int, Field(ge=1024, le=65535)]
"""A TCP port on which an unprivileged process may listen."""

_DNS_NAME = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*"
LABEL_NAME_PATTERN = rf"^({_DNS_NAME}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?$"


def _prefix_fits(name: str) -> str:
    if len(name.rpartition("/")[0]) > 253:
        raise ValueError(f"the prefix of {name[:40]!r} has more than 253 characters")
    return name


LabelName = Annotated[str, StringConstraints(pattern=LABEL_NAME_PATTERN, max_length=317), AfterValidator(_prefix_fits)]
"""A qualified name: at most 63 characters, after an optional DNS name of at most 253 and a slash."""
DnsName = Annotated[str, StringConstraints(pattern=rf"^{_DNS_NAME}$", max_length=253)]
"""A lower-case DNS name, which most objects of Kubernetes are named by."""
LabelValue = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", max_length=63)]

_QUANTITY = r"^[0-9]{1,15}(\.[0-9]{1,9})?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"


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

    key: LabelName | None = None
    """Key of the taint. Without a key every taint matches, and the operator must be `Exists`."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """How the value is compared."""
    value: LabelValue | None = None
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint. Without an effect every effect matches."""
    toleration_seconds: Annotated[int, Field(ge=0, le=86400)] | None = None
    """How long a `NoExecute` taint is tolerated, in seconds."""

    @model_validator(mode="after")
    def _fields_fit(self) -> Self:
        if self.key is None and self.operator != "Exists":
            raise ValueError("operator: must be Exists without a key")
        if self.operator == "Exists" and self.value:
            raise ValueError("value: must be empty with operator Exists")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError("tolerationSeconds: is only for effect NoExecute")
        return self


class ResourceRequirements(Model):
    """Compute resources of the container."""

    requests: Annotated[dict[str, Quantity], Field(max_length=8)] = Field(default_factory=dict)
    """Guaranteed amount of each resource."""
    limits: Annotated[dict[str, Quantity], Field(max_length=8)] = Field(default_factory=dict)
    """Upper limit of each resource."""

    @model_validator(mode="after")
    def _amounts_fit(self) -> Self:
        for field, amounts in (("requests", self.requests), ("limits", self.limits)):
            for name, amount in amounts.items():
                if problem := _resource_problem(name, amount):
                    raise ValueError(f"{field}: {problem}")
        for name, amount in self.requests.items():
            limit = self.limits.get(name)
            if limit is not None and _value(amount) > _value(limit):
                raise ValueError(f"requests: {name} {amount!r} is more than the limit {limit!r}")
            if "/" in name and (limit is None or _value(limit) != _value(amount)):
                raise ValueError(f"requests: {name} must have a limit of the same amount")
        return self


def _resource_problem(name: str, amount: str) -> str | None:
    """Why the API server would refuse a pod with this amount of a resource, None if it would not."""
    own = name in ("cpu", "memory", "ephemeral-storage") or name.startswith("hugepages-")
    if len(name) > 317 or not re.fullmatch(LABEL_NAME_PATTERN, name) or not (own or "/" in name):
        return f"{name[:40]!r} is no resource; allowed are cpu, memory, ephemeral-storage and names with a domain"
    value = _value(amount)
    if value >= 1 << 63:
        return f"{name} {amount!r} is too large"
    if name != "cpu" and value.denominator != 1:
        return f"{name} {amount!r} must be a whole number"
    if (value * 1000).denominator != 1:
        return f"{name} {amount!r} is finer than 1m"
    return None


def _value(amount: str) -> Fraction:
    value = quantity_value(amount)
    assert value is not None  # the pattern of Quantity has matched
    return value


CurveKey = Annotated[str, StringConstraints(pattern=r"^[0-9a-zA-Z.:+=^!/*?&<>()\[\]{}@%$#-]{40}$", max_length=40)]
"""A CURVE public key in Z85 (ZeroMQ RFC 32)."""


class PodTemplate(Model):
    """How and where the pods run. The security settings of the pods are fixed and cannot be changed here."""

    image: Annotated[str, StringConstraints(pattern=r"^[^\s]+$", max_length=512)] | None = None
    """Container image. By default the image that the operator was installed with."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When the image is pulled."""
    image_pull_secrets: Annotated[
        list[DnsName],
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
    priority_class_name: DnsName | None = None
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
