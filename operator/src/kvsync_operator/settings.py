"""The settings of the operator process, taken from options and the environment and validated once."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from kvsync_operator.errors import ConfigError
from kvsync_operator.grants import GRANT_PATTERN, Grants
from kvsync_operator.objects.images import Images

_Namespace = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
_Grant = Annotated[str, StringConstraints(pattern=GRANT_PATTERN, max_length=127)]
_Image = Annotated[str, StringConstraints(pattern=r"^[^\s]+$", max_length=512)]


class OperatorSettings(BaseModel):
    """Settings of the operator process."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    namespaces: Annotated[tuple[_Namespace, ...], Field(max_length=256)] = ()
    """Namespaces in which resources are served."""
    all_namespaces: bool = False
    """Serve resources in all namespaces, which requires a ClusterRole."""
    cross_namespace: Annotated[tuple[_Grant, ...], Field(max_length=256)] = ()
    """Pairs INDEX_NAMESPACE=POD_NAMESPACE: which PrefixIndexes may follow the pods of another namespace."""
    mockpod_image: _Image = Images().mockpod
    """Image of engine pods whose resource names none."""
    indexer_image: _Image = Images().indexer
    """Image of index pods whose resource names none."""
    resync_s: Annotated[float, Field(ge=5, le=86_400)] = 300.0
    """How often every object is applied again, even without a change, in seconds."""
    sync_poll_s: Annotated[float, Field(ge=1, le=3600)] = 10.0
    """How often an index that is in sync is asked for its publishers, in seconds."""
    audit_s: Annotated[float, Field(ge=1, le=3600)] = 30.0
    """How often the custom resources are listed in order to detect a silent watch, in seconds."""
    write_slots: Annotated[int, Field(ge=1, le=64)] = 8
    """Number of concurrent API requests."""
    request_timeout_s: Annotated[float, Field(ge=1, le=300)] = 15.0
    """Longest duration of one API request, in seconds."""
    stuck_after_s: Annotated[float, Field(ge=5, le=3600)] = 120.0
    """The liveness probe fails when a pass is due or running for longer than this, in seconds."""
    http_host: str = "0.0.0.0"
    """Address to serve /healthz, /readyz and /metrics on."""
    http_port: Annotated[int, Field(ge=0, le=65_535)] = 8081
    """Port to serve /healthz, /readyz and /metrics on; 0 lets the system choose."""

    @model_validator(mode="after")
    def _one_scope(self) -> Self:
        if self.all_namespaces == bool(self.namespaces):
            raise ValueError("namespaces: name at least one with --namespace, or serve all with --all-namespaces")
        return self

    @property
    def grants(self) -> Grants:
        """Which PrefixIndexes may follow the pods of other namespaces."""
        return Grants.parse(self.cross_namespace)

    @property
    def images(self) -> Images:
        """Images of pods whose resource names none."""
        return Images(mockpod=self.mockpod_image, indexer=self.indexer_image)


def build_settings(**values: object) -> OperatorSettings:
    """Validate `values`. A value of None selects the default.

    Raises:
        ConfigError: A value is invalid; one line names the option, the value and what is allowed.
    """
    try:
        return OperatorSettings.model_validate({key: value for key, value in values.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = {"namespaces": "namespace"}.get(str(first["loc"][0]), str(first["loc"][0])) if first["loc"] else ""
        field = field.replace("_", "-")
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"--{field}: {first['input']!r}: {message}" if field else message) from None
