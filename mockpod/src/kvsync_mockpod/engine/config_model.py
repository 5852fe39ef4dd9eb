"""The common base of the engine's configuration models: frozen, closed, with errors of one line."""

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from kvsync_mockpod.engine.errors import EngineConfigError
from kvsync_mockpod.suggestions import did_you_mean


class ConfigModel(BaseModel):
    """A frozen model that accepts no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: ClassVar[str] = "parameter"
    """What error messages call a field."""

    @classmethod
    def build(cls, **values: Any) -> Self:  # noqa: ANN401 - field values, validated here
        """Build a configuration from field values.

        Raises:
            EngineConfigError: one line that names the first invalid field.
        """
        for name in values:
            if name not in cls.model_fields:
                raise EngineConfigError(f"unknown {cls.subject} {name!r}{did_you_mean(name, cls.model_fields)}")
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            message = str(first["msg"]).removeprefix("Value error, ")
            raise EngineConfigError(f"{where} {first['input']!r}: {message}" if where else message) from None
