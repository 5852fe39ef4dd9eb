"""The custom resource `PrefixIndex`: an index of the engines that a selector finds, and optionally a router."""

from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, model_validator

from kvsync_operator import names
from kvsync_operator.models.common import (
    Condition,
    CurveKey,
    DnsName,
    Duration,
    DurationBounds,
    LabelName,
    LabelValue,
    Model,
    PodTemplate,
    Quantity,
    duplicates,
    rules,
    with_defaults,
)
from kvsync_operator.models.endpointpicker import POOL_SELECTOR, EndpointPicker
from kvsync_operator.models.router import Router
from kvsync_operator.quantity import quantity_value

_Namespace = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
_PORT = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_HOST = r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+)"
_IPC = r"ipc://[^\s]{4,}"
_Endpoint = Annotated[str, StringConstraints(pattern=rf"^(tcp://(\*|{_HOST}):{_PORT}|{_IPC})$", max_length=256)]
_ReplayEndpoint = Annotated[str, StringConstraints(pattern=rf"^(tcp://{_HOST}:{_PORT}|{_IPC})$", max_length=256)]
_Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$", max_length=256)]


_FILES = "claimName: source Files needs it, and no other source has it"


class MatchExpression(Model):
    """A requirement on one label."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            (
                "self.operator in ['In', 'NotIn'] ? size(self.values) > 0 : size(self.values) == 0",
                "values: In and NotIn need at least one value, Exists and DoesNotExist take none",
            ),
        )
    }

    key: LabelName
    """Name of the label."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How the label is compared."""
    values: Annotated[list[LabelValue], Field(max_length=32)] = Field(
        default_factory=list, json_schema_extra={"default": []}
    )
    """Values for `In` and `NotIn`."""

    @model_validator(mode="after")
    def _values_fit(self) -> Self:
        if (self.operator in ("In", "NotIn")) != bool(self.values):
            raise ValueError("values: In and NotIn need at least one value, Exists and DoesNotExist take none")
        return self


class Selector(Model):
    """Selects the engine pods that the index follows. A pod must meet all requirements."""

    match_labels: Annotated[dict[LabelName, LabelValue], Field(max_length=32)] = Field(
        default_factory=lambda: {names.LABEL_KV_EVENTS: "true"},
        json_schema_extra={"default": {names.LABEL_KV_EVENTS: "true"}},
    )
    """Labels that a pod must have with exactly these values."""
    match_expressions: Annotated[list[MatchExpression], Field(max_length=16)] = Field(default_factory=list)
    """Further requirements on labels."""


class Sync(Model):
    """Timeouts and intervals for following publishers."""

    stale_after: Annotated[Duration, DurationBounds("1ms", "24h")] = "10s"
    """How long a publisher may be silent and unresponsive before it counts as stale and is no longer matched."""
    replay_timeout: Annotated[Duration, DurationBounds("1ms", "1h")] = "5s"
    """How long a replay may take before it counts as failed."""
    audit_interval: Annotated[Duration, DurationBounds("0s", "24h")] = "0"
    """How often the index compares its content with the block table of each engine; `0` disables the comparison.
    It requires engines that serve `/debug`."""


class Snapshot(Model):
    """The volume on which the index stores its state, so that a restarted pod resumes from it."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            (
                "!has(self.storageClassName) || self.volume == 'PersistentVolumeClaim'",
                "snapshot.storageClassName is only for volume PersistentVolumeClaim",
            ),
        )
    }

    volume: Literal["EmptyDir", "PersistentVolumeClaim"] = "EmptyDir"
    """An `EmptyDir` survives a restart of the container, a `PersistentVolumeClaim` also the deletion of the pod.
    A claim can be neither added to an existing PrefixIndex nor removed from it."""
    size: Quantity = "1Gi"
    """Size of the volume. The size of a claim cannot be changed."""
    storage_class_name: DnsName | None = None
    """Storage class of the claim, by default that of the cluster. It cannot be changed."""

    @model_validator(mode="after")
    def _class_needs_claim(self) -> Self:
        if self.storage_class_name is not None and self.volume != "PersistentVolumeClaim":
            raise ValueError("storageClassName: is only for volume PersistentVolumeClaim")
        if not 1 <= (quantity_value(self.size) or 0) < 1 << 63:
            raise ValueError(f"size: {self.size!r} must be at least 1 byte and less than 8Ei")
        return self


class Tokenizer(Model):
    """How the index turns the text of one model into tokens."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            ("(self.source == 'Files') == has(self.claimName)", _FILES),
            ("self.source == 'Files' || !has(self.path)", "tokenizers.path is only for source Files"),
        )
    }

    model: Annotated[str, StringConstraints(pattern=r"^(\*|[A-Za-z0-9][A-Za-z0-9._/:@-]*)$", max_length=128)]
    """Name of the model, or `*` for all models without an entry of their own."""
    source: Literal["Remote", "Mock", "Files"]
    """`Remote`: an engine of the model. `Mock`: as mock engines do. `Files`: a `tokenizer.json` with its settings."""
    claim_name: DnsName | None = None
    """PersistentVolumeClaim, in the same namespace, that holds the files; it is mounted read-only."""
    path: (
        Annotated[
            str,
            StringConstraints(
                pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$", max_length=256
            ),
        ]
        | None
    ) = None
    """Folder, or `tokenizer.json`, in the volume; by default its root."""

    @model_validator(mode="after")
    def _files_need_claim(self) -> Self:
        if (self.source == "Files") != (self.claim_name is not None):
            raise ValueError(_FILES)
        if self.source != "Files" and self.path is not None:
            raise ValueError("path: is only for source Files")
        return self


class IndexCurve(Model):
    """The CURVE keys of the index, for engines whose sockets are encrypted."""

    secret_name: DnsName
    """Secret, in the same namespace, that holds the CURVE secret key of the index as `secret-key`."""
    server_key: CurveKey | None = None
    """Public key of engines that name none. An engine names one with the annotation `kvsync.dev/curve-server-key` or,
    in `publishers`, with `serverKey`."""


class IndexApi(Model):
    """Who may use the HTTP API of the index, and whether it is encrypted."""

    token_secret_name: DnsName | None = None
    """Secret, in the same namespace, whose key `token` holds the bearer tokens that the API accepts, one per line.
    Health, readiness, metrics and the page at `/ui` are open all the same. Without this field the API is open."""
    tls_secret_name: DnsName | None = None
    """Secret of type `kubernetes.io/tls`, in the same namespace, with the certificate of the API. Without this field
    the API is served without TLS."""


_WILDCARD = "endpoint: `*` can only be bound; name a host, or set direction Bind"


class StaticPublisher(Model):
    """An engine that the selector cannot find, such as a vLLM server outside the cluster."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            ("self.direction == 'Bind' || !self.endpoint.startsWith('tcp://*')", _WILDCARD),
        )
    }

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", max_length=128)]
    """Name of the publisher in the index."""
    model: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]*$", max_length=128)]
    """Model that the engine serves."""
    endpoint: _Endpoint
    """Address of the event socket, such as `tcp://10.0.0.7:5557`."""
    replay_endpoint: _ReplayEndpoint | None = None
    """Address of the replay socket. Without it the index cannot request lost batches."""
    rank: Annotated[int, Field(ge=0, le=4095)] = 0
    """Data-parallel rank that publishes on the event socket."""
    http_url: _Url | None = None
    """URL of the engine's HTTP API, to which the router forwards requests."""
    debug_url: _Url | None = None
    """URL at which the engine serves its block table, for audits."""
    server_key: CurveKey | None = None
    """CURVE public key of the engine, if its sockets are encrypted."""
    direction: Literal["Connect", "Bind"] = "Connect"
    """Whether the index connects to the endpoint or binds it. vLLM connects unless its own endpoint contains `*`."""

    @model_validator(mode="after")
    def _wildcard_is_bound(self) -> Self:
        if self.direction == "Connect" and self.endpoint.startswith("tcp://*"):
            raise ValueError(_WILDCARD)
        for name, url in (("httpUrl", self.http_url), ("debugUrl", self.debug_url)):
            try:
                host = urlsplit(url).hostname if url is not None else "none"
            except ValueError:
                host = None
            if not host:
                raise ValueError(f"{name}: {url!r} has no host that can be used")
        return self

    def to_row(self) -> dict[str, Any]:
        """Return the publisher in the form of the publishers file of `kvsync-indexer`."""
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


POOL_NAMESPACE = "an InferencePool selects pods of its own namespace, so with an endpoint picker it must be empty"
PICKER_PORTS = "9002, 9003 and 9090 are the ports of the endpoint picker"
_PICKS = "has(self.endpointPicker) && self.endpointPicker.enabled"
_ONE_NAMESPACE = f"!({_PICKS}) || !has(self.namespaces) || size(self.namespaces) == 0"
_POOL_LABELS = (
    f"!({_PICKS} && self.endpointPicker.createPool == 'Enabled')"
    " || (size(self.selector.matchLabels) > 0"
    " && (!has(self.selector.matchExpressions) || size(self.selector.matchExpressions) == 0))"
)
_PORTS_APART = f"!({_PICKS}) || !has(self.router) || !(self.router.port in [9002, 9003, 9090])"


class PrefixIndexSpec(Model):
    """The desired state of the index pods."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            (
                _CLAIM_STAYS,
                "spec.snapshot.volume: a claim cannot be added or removed; create a new PrefixIndex",
            ),
            (
                _CLAIM_SAME,
                "spec.snapshot: size and storageClassName of a claim cannot be changed",
            ),
            (_ONE_NAMESPACE, f"spec.namespaces: {POOL_NAMESPACE}"),
            (_POOL_LABELS, f"spec.selector: {POOL_SELECTOR}"),
            (_PORTS_APART, f"spec.router.port: {PICKER_PORTS}"),
        )
    }

    replicas: Annotated[int, Field(ge=0, le=10)] = 1
    """Number of index pods. Each pod follows every engine independently. With two or more, and without TLS, a new pod
    starts from the snapshot of a ready one."""
    selector: Selector = Field(default_factory=Selector, json_schema_extra=with_defaults())
    """Selects the engine pods that the index follows."""
    namespaces: Annotated[
        list[_Namespace], Field(max_length=32, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = Field(default_factory=list)
    """Namespaces in which engine pods are selected. By default the namespace of the PrefixIndex. The installation must
    grant every other namespace (`operator.crossNamespace` of the chart)."""
    publishers: Annotated[
        list[StaticPublisher], Field(max_length=256, json_schema_extra={"x-list-map-keys": ["name"]})
    ] = Field(default_factory=list)
    """Engines to follow in addition to the selected pods."""
    tokenizers: Annotated[list[Tokenizer], Field(max_length=32, json_schema_extra={"x-list-map-keys": ["model"]})] = (
        Field(default_factory=list)
    )
    """Tokenizers by model. Text of other models is tokenized by one of their engines."""
    curve: IndexCurve | None = None
    """CURVE keys. Without this field, the index uses a new key pair at each start for engines that have CURVE."""
    api: IndexApi = Field(default_factory=IndexApi, json_schema_extra=with_defaults())
    """Tokens and encryption of the index's HTTP API."""
    core: Literal["auto", "python", "native"] = "auto"
    """Implementation of the index core. `auto` uses the native core if the image contains it."""
    sync: Sync = Field(default_factory=Sync, json_schema_extra=with_defaults())
    """Timeouts and intervals for following publishers."""
    snapshot: Snapshot | None = None
    """Store the state of the index on a volume. Without a snapshot a restarted pod rebuilds its state by replay."""
    router: Router | None = None
    """Run a router in the index pods. Without this field there is no router."""
    endpoint_picker: EndpointPicker | None = None
    """Run an endpoint picker for gateways in the index pods. Without this field there is none."""
    template: PodTemplate = Field(default_factory=PodTemplate, json_schema_extra=with_defaults())
    """How and where the pods run."""

    @model_validator(mode="after")
    def _entries_differ(self) -> Self:
        if twice := duplicates(self.namespaces):
            raise ValueError(f"namespaces: {twice[0]!r} occurs more than once")
        if twice := duplicates([publisher.name for publisher in self.publishers]):
            raise ValueError(f"publishers: the name {twice[0]!r} occurs more than once")
        if twice := duplicates([tokenizer.model for tokenizer in self.tokenizers]):
            raise ValueError(f"tokenizers: the model {twice[0]!r} occurs more than once")
        return self

    @property
    def picker(self) -> EndpointPicker | None:
        """The endpoint picker, None if there is none or it is disabled."""
        picker = self.endpoint_picker
        return picker if picker is not None and picker.enabled else None

    @model_validator(mode="after")
    def _picker_fits(self) -> Self:
        picker = self.picker
        if picker is None:
            return self
        if self.namespaces:
            raise ValueError(f"namespaces: {POOL_NAMESPACE}")
        if picker.create_pool == "Enabled" and (self.selector.match_expressions or not self.selector.match_labels):
            raise ValueError(f"selector: {POOL_SELECTOR}")
        if self.router is not None and self.router.port in names.PICKER_PORTS:
            raise ValueError(f"router.port: {PICKER_PORTS}")
        return self


class PublisherCounts(Model):
    """Number of publishers by state. With several index pods, the counts of the pod with the fewest live publishers."""

    total: Annotated[int, Field(ge=0)] = 0
    """All publishers."""
    live: Annotated[int, Field(ge=0)] = 0
    """Publishers that are in sync with their engine."""
    stale: Annotated[int, Field(ge=0)] = 0
    """Publishers that are silent and unresponsive."""
    resyncing: Annotated[int, Field(ge=0)] = 0
    """Publishers that are being connected, replayed or resynchronised."""
    quarantined: Annotated[int, Field(ge=0)] = 0
    """Publishers that are ignored for a while because they sent invalid data."""


class PrefixIndexStatus(Model):
    """The observed state of the index pods."""

    conditions: Annotated[list[Condition], Field(max_length=8, json_schema_extra={"x-list-map-keys": ["type"]})] = (
        Field(default_factory=list)
    )
    """`Ready`, `Progressing` and `Degraded` as for a MockEngine. `Synced`: the index reports that every publisher is
    live. `EndpointPicker`, with one: the InferencePool asks this picker."""
    observed_generation: Annotated[int, Field(ge=0)] = 0
    """Generation of the spec to which this status applies."""
    replicas: Annotated[int, Field(ge=0)] = 0
    """Number of pods."""
    updated_replicas: Annotated[int, Field(ge=0)] = 0
    """Number of pods with the current spec."""
    ready_replicas: Annotated[int, Field(ge=0)] = 0
    """Number of ready pods."""
    selector: Annotated[str, StringConstraints(max_length=512)] = ""
    """Label selector of the pods, for the scale subresource and autoscalers."""
    publishers: PublisherCounts = Field(default_factory=PublisherCounts)
    """Number of publishers by state, from which the condition `Synced` follows."""
    endpoint: Annotated[str, StringConstraints(max_length=512)] = ""
    """URL of the index inside the cluster."""
    router_endpoint: Annotated[str, StringConstraints(max_length=512)] = ""
    """URL of the router inside the cluster; empty without a router."""
    pool: Annotated[str, StringConstraints(max_length=253)] = ""
    """Name of the InferencePool that the endpoint picker serves; empty without a picker."""
    picker_endpoint: Annotated[str, StringConstraints(max_length=512)] = ""
    """Host and port of the endpoint picker inside the cluster; empty without a picker."""
