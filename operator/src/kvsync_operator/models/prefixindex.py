"""The custom resource `PrefixIndex`: the sync index over the engines a selector finds, and its router."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from kvsync_operator import names
from kvsync_operator.models.common import (
    Condition,
    Duration,
    LabelName,
    LabelValue,
    Model,
    PodTemplate,
    Port,
    Quantity,
    duplicates,
    duration_seconds,
    rules,
    with_defaults,
)

__all__ = [
    "MatchExpression",
    "PrefixIndexSpec",
    "PrefixIndexStatus",
    "PublisherCounts",
    "Router",
    "Selector",
    "Snapshot",
    "StaticPublisher",
    "Sync",
]

_Namespace = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
_Endpoint = Annotated[str, StringConstraints(pattern=r"^(tcp|ipc)://[^\s]+$", max_length=256)]
_Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$", max_length=256)]


class MatchExpression(Model):
    """One requirement on a label."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            (
                "self.operator in ['In', 'NotIn'] ? size(self.values) > 0 : size(self.values) == 0",
                "values: In and NotIn need at least one value, Exists and DoesNotExist take none",
            ),
        )
    }

    key: LabelName
    """Label name."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How it is compared."""
    values: Annotated[list[LabelValue], Field(max_length=32)] = Field(
        default_factory=list, json_schema_extra={"default": []}
    )
    """Values for In and NotIn."""

    @model_validator(mode="after")
    def _values_fit(self) -> Self:
        if (self.operator in ("In", "NotIn")) != bool(self.values):
            raise ValueError("values: In and NotIn need at least one value, Exists and DoesNotExist take none")
        return self


class Selector(Model):
    """Which pods are followed: all requirements must hold."""

    match_labels: Annotated[dict[LabelName, LabelValue], Field(max_length=32)] = Field(
        default_factory=lambda: {names.LABEL_KV_EVENTS: "true"},
        json_schema_extra={"default": {names.LABEL_KV_EVENTS: "true"}},
    )
    """Labels with exactly these values."""
    match_expressions: Annotated[list[MatchExpression], Field(max_length=16)] = Field(default_factory=list)
    """Requirements of another form."""


class Sync(Model):
    """How closely the index follows its publishers."""

    stale_after: Duration = "10s"
    """After this long without a sign of life a publisher is stale and not matched any more."""
    replay_timeout: Duration = "5s"
    """How long a replay may take before it counts as failed."""
    audit_interval: Duration = "0"
    """How often the index compares itself with each engine's own block table; `0` is never.
    Needs engines that serve `/debug`."""

    @model_validator(mode="after")
    def _positive(self) -> Self:
        for name, value in (("staleAfter", self.stale_after), ("replayTimeout", self.replay_timeout)):
            if duration_seconds(value) <= 0:
                raise ValueError(f"{name}: {value!r} must be more than 0")
        return self


class Snapshot(Model):
    """Where the index keeps its state so that a restarted pod resumes at once."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            (
                "!has(self.storageClassName) || self.volume == 'PersistentVolumeClaim'",
                "snapshot.storageClassName is only for volume PersistentVolumeClaim",
            ),
        )
    }

    volume: Literal["EmptyDir", "PersistentVolumeClaim"] = "EmptyDir"
    """`EmptyDir` outlives a restart of the container, `PersistentVolumeClaim` also the pod. Cannot be changed."""
    size: Quantity = "1Gi"
    """Size of the volume. Cannot be changed."""
    storage_class_name: Annotated[str, StringConstraints(max_length=253)] | None = None
    """Storage class of the claim; without one, the cluster's default. Cannot be changed."""

    @model_validator(mode="after")
    def _class_needs_claim(self) -> Self:
        if self.storage_class_name is not None and self.volume != "PersistentVolumeClaim":
            raise ValueError("storageClassName: is only for volume PersistentVolumeClaim")
        return self


class Router(Model):
    """An OpenAI-compatible proxy that sends each request to the best engine."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            (f"self.port != {names.INDEX_PORT}", f"router.port: {names.INDEX_PORT} is the index's own port"),
        )
    }

    port: Port = 8080
    """Port of the router and of its Service."""
    policy: Literal["kv", "least_request", "round_robin", "random"] = "kv"
    """How an engine is chosen."""

    @model_validator(mode="after")
    def _port_apart(self) -> Self:
        if self.port == names.INDEX_PORT:
            raise ValueError(f"port: {names.INDEX_PORT} is the index's own port")
        return self


class StaticPublisher(Model):
    """An engine that discovery cannot find, such as a vLLM server outside the cluster."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", max_length=128)]
    """Name of the publisher in the index."""
    model: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]*$", max_length=128)]
    """Model it serves."""
    endpoint: _Endpoint
    """Its event socket, such as `tcp://10.0.0.7:5557`."""
    replay_endpoint: _Endpoint | None = None
    """Its replay socket; without one, gaps cannot be filled."""
    rank: Annotated[int, Field(ge=0, le=4095)] = 0
    """Data-parallel rank that publishes there."""
    http_url: _Url | None = None
    """Its HTTP address, to which the router sends requests."""
    debug_url: _Url | None = None
    """Where its block table is served, for audits."""
    direction: Literal["Connect", "Bind"] = "Connect"
    """Whether the index connects to the endpoint or binds it (vLLM connects unless its endpoint has a `*`)."""

    def to_row(self) -> dict[str, Any]:
        """The publisher as the indexer's publishers file has it."""
        row = self.model_dump(exclude_none=True, exclude={"direction"})
        return row | ({"bind": True} if self.direction == "Bind" else {})


_CLAIM_STAYS = (
    "(has(self.snapshot) && self.snapshot.volume == 'PersistentVolumeClaim')"
    " == (has(oldSelf.snapshot) && oldSelf.snapshot.volume == 'PersistentVolumeClaim')"
)
_CLAIM_SAME = (
    "!(has(self.snapshot) && has(oldSelf.snapshot) && self.snapshot.volume == 'PersistentVolumeClaim')"
    " || (self.snapshot.size == oldSelf.snapshot.size"
    " && has(self.snapshot.storageClassName) == has(oldSelf.snapshot.storageClassName)"
    " && (!has(self.snapshot.storageClassName)"
    " || self.snapshot.storageClassName == oldSelf.snapshot.storageClassName))"
)


class PrefixIndexSpec(Model):
    """What the index is to be."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            (
                _CLAIM_STAYS,
                "spec.snapshot.volume: a claim cannot be added or taken away; make a new PrefixIndex",
            ),
            (
                _CLAIM_SAME,
                "spec.snapshot: size and storageClassName of a claim cannot be changed",
            ),
        )
    }

    replicas: Annotated[int, Field(ge=0, le=10)] = 1
    """Number of index pods. Each follows every engine by itself."""
    selector: Selector = Field(default_factory=Selector, json_schema_extra=with_defaults())
    """Which engine pods are followed."""
    namespaces: Annotated[
        list[_Namespace], Field(max_length=32, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = Field(default_factory=list)
    """Namespaces in which engines are looked for; none means the index's own."""
    publishers: Annotated[
        list[StaticPublisher], Field(max_length=256, json_schema_extra={"x-list-map-keys": ["name"]})
    ] = Field(default_factory=list)
    """Engines beside those the selector finds."""
    core: Literal["auto", "python", "native"] = "auto"
    """Which index core runs; `auto` takes the native one where the image has it."""
    sync: Sync = Field(default_factory=Sync, json_schema_extra=with_defaults())
    """How closely the index follows its publishers."""
    snapshot: Snapshot | None = None
    """Keep the index's state on a volume; without it a restarted pod builds it anew by replay."""
    router: Router | None = None
    """Run a router in the index pods; without it there is none."""
    template: PodTemplate = Field(default_factory=PodTemplate, json_schema_extra=with_defaults())
    """How the pods are run."""

    @model_validator(mode="after")
    def _entries_differ(self) -> Self:
        if twice := duplicates(self.namespaces):
            raise ValueError(f"namespaces: {twice[0]!r} occurs more than once")
        if twice := duplicates([publisher.name for publisher in self.publishers]):
            raise ValueError(f"publishers: the name {twice[0]!r} occurs more than once")
        return self


class PublisherCounts(Model):
    """How the index sees its publishers; with several index pods, the least favourable of them."""

    total: Annotated[int, Field(ge=0)] = 0
    """Publishers known."""
    live: Annotated[int, Field(ge=0)] = 0
    """Publishers in step with their engine."""
    stale: Annotated[int, Field(ge=0)] = 0
    """Publishers without a sign of life."""
    resyncing: Annotated[int, Field(ge=0)] = 0
    """Publishers being connected, replayed or resynchronised."""
    quarantined: Annotated[int, Field(ge=0)] = 0
    """Publishers cut off because of what they sent."""


class PrefixIndexStatus(Model):
    """What was observed."""

    conditions: Annotated[list[Condition], Field(max_length=8, json_schema_extra={"x-list-map-keys": ["type"]})] = (
        Field(default_factory=list)
    )
    """`Ready`, `Progressing` and `Degraded` as for a MockEngine; `Synced`: every publisher is live, said by the
    index itself."""
    observed_generation: Annotated[int, Field(ge=0)] = 0
    """Generation of the spec this status belongs to."""
    replicas: Annotated[int, Field(ge=0)] = 0
    """Pods that exist."""
    updated_replicas: Annotated[int, Field(ge=0)] = 0
    """Pods of the current spec."""
    ready_replicas: Annotated[int, Field(ge=0)] = 0
    """Pods that are ready."""
    selector: Annotated[str, StringConstraints(max_length=512)] = ""
    """Label selector of the pods, for `kubectl scale` and autoscalers."""
    publishers: PublisherCounts = Field(default_factory=PublisherCounts)
    """Counts behind the condition `Synced`."""
    endpoint: Annotated[str, StringConstraints(max_length=512)] = ""
    """Address of the index inside the cluster."""
    router_endpoint: Annotated[str, StringConstraints(max_length=512)] = ""
    """Address of the router inside the cluster; empty without one."""
