"""The endpoint picker of a `PrefixIndex`, which gateways ask where a request should go."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kvsync_operator import names
from kvsync_operator.models.common import DnsName, Model, rules
from kvsync_operator.models.router import Placing

POOL_SELECTOR = "an InferencePool has labels only, so createPool needs matchLabels and no matchExpressions"
_OWN_POOL = "targetPorts and failureMode are fields of the InferencePool; they need createPool Enabled"
_CERTIFICATE = "certificateSecretName: needs tls Enabled"

_TargetPorts = Annotated[
    list[Annotated[int, Field(ge=1, le=65535)]],
    Field(min_length=1, max_length=8, json_schema_extra={"x-kubernetes-list-type": "set"}),
]


class EndpointPicker(Placing):
    """An endpoint picker (`ext_proc`) for gateways that implement the Gateway API Inference Extension.

    It runs in the index pods. Its Service has port 9002 for gateways, 9003 for gRPC health checks and 9090 for metrics.
    """

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            ("self.createPool == 'Enabled' || (!has(self.targetPorts) && !has(self.failureMode))", _OWN_POOL),
            ("self.tls == 'Enabled' || !has(self.certificateSecretName)", _CERTIFICATE),
        )
    }

    enabled: bool = True
    """Whether there is a picker; `false` keeps the other fields for later."""
    pool: DnsName | None = None
    """InferencePool, in the same namespace, whose pods and ports are the endpoints. By default it has the name of the
    PrefixIndex. Unless the operator makes it, the index follows its pods in place of those of `selector`."""
    create_pool: Literal["Disabled", "Enabled"] = "Disabled"
    """Whether the operator makes the InferencePool, from the labels of `selector`, with this picker."""
    target_ports: _TargetPorts | None = None
    """HTTP ports of each pod in a pool that the operator makes; each is one data-parallel rank. The default is 8000."""
    failure_mode: Literal["FailClose", "FailOpen"] | None = None
    """What a gateway does while no picker answers, for a pool that the operator makes: refuse requests (the default),
    or send them to any pod."""
    attempts: Annotated[int, Field(ge=1, le=16)] = 3
    """Addresses in an answer: the best one, then fall-backs."""
    addresses: Literal["List", "Single"] = "List"
    """`Single`: name one address without fall-backs, for gateways with a cluster of type `ORIGINAL_DST`."""
    tls: Literal["Enabled", "Disabled"] = "Enabled"
    """Whether the picker serves gateways with TLS."""
    certificate_secret_name: DnsName | None = None
    """Secret of type `kubernetes.io/tls` in the same namespace. By default each pod makes a certificate of its own."""

    @property
    def ports_of_pods(self) -> list[int]:
        """The target ports of a pool that the operator makes."""
        return list(self.target_ports or [names.HTTP_PORT])

    @model_validator(mode="after")
    def _fields_fit(self) -> Self:
        if self.create_pool == "Disabled" and (self.target_ports is not None or self.failure_mode is not None):
            raise ValueError(f"createPool: {_OWN_POOL}")
        if self.tls == "Disabled" and self.certificate_secret_name is not None:
            raise ValueError(_CERTIFICATE)
        if self.target_ports is not None and len(set(self.target_ports)) < len(self.target_ports):
            raise ValueError("targetPorts: a port occurs more than once")
        return self
