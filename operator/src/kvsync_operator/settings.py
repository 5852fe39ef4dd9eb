"""The operator process's own settings: from flags and environment, validated once."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from kvsync_operator.errors import ConfigError
from kvsync_operator.objects.images import Images

__all__ = ["OperatorSettings", "build_settings"]

_Namespace = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
_Image = Annotated[str, StringConstraints(pattern=r"^[^\s]+$", max_length=512)]


class OperatorSettings(BaseModel):
    """How the operator runs."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    namespaces: Annotated[tuple[_Namespace, ...], Field(max_length=256)] = ()
    """Namespaces served."""
    all_namespaces: bool = False
    """Serve the whole cluster; needs a ClusterRole."""
    mockpod_image: _Image = Images().mockpod
    """Image of engine pods that name none."""
    indexer_image: _Image = Images().indexer
    """Image of index pods that name none."""
    resync_s: Annotated[float, Field(ge=5, le=86_400)] = 300.0
    """Every object is applied again this often, whatever the watches say."""
    sync_poll_s: Annotated[float, Field(ge=1, le=3600)] = 10.0
    """How often an index is asked for its publishers."""
    audit_s: Annotated[float, Field(ge=1, le=3600)] = 30.0
    """How often the watched resources are listed, to notice a watch that went silent."""
    write_slots: Annotated[int, Field(ge=1, le=64)] = 8
    """API requests of ours at a time."""
    request_timeout_s: Annotated[float, Field(ge=1, le=300)] = 15.0
    """Time one API request may take."""
    stuck_after_s: Annotated[float, Field(ge=5, le=3600)] = 120.0
    """A pass that takes or waits longer than this makes the liveness probe fail."""
    http_host: str = "0.0.0.0"
    """Address of /healthz, /readyz and /metrics."""
    http_port: Annotated[int, Field(ge=0, le=65_535)] = 8081
    """Port of /healthz, /readyz and /metrics; 0 lets the system choose."""

    @model_validator(mode="after")
    def _one_scope(self) -> Self:
        if self.all_namespaces == bool(self.namespaces):
            raise ValueError("namespaces: name at least one with --namespace, or serve all with --all-namespaces")
        return self

    @property
    def images(self) -> Images:
        """The default images of the pods."""
        return Images(mockpod=self.mockpod_image, indexer=self.indexer_image)


def build_settings(**values: object) -> OperatorSettings:
    """Validate `values`; those that are None keep their default.

    Raises:
        ConfigError: one line naming the setting, its value and what is allowed.
    """
    try:
        return OperatorSettings.model_validate({key: value for key, value in values.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = {"namespaces": "namespace"}.get(str(first["loc"][0]), str(first["loc"][0])) if first["loc"] else ""
        field = field.replace("_", "-")
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"--{field}: {first['input']!r}: {message}" if field else message) from None
