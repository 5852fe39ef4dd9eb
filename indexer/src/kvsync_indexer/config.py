"""The settings of the index service, validated once at start."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from kvsync_events.curve import check_key, read_key
from kvsync_indexer.errors import ConfigError
from kvsync_indexer.ingest import CurveKeys, SocketSettings
from kvsync_indexer.publishers_file import describe
from kvsync_indexer.serving import TlsFiles
from kvsync_indexer.sync import SyncSettings
from kvsync_indexer.tokenizer_choice import parse_flags

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h)?$")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


def parse_duration(text: str) -> float:
    """Seconds in `500ms`, `10s`, `2m`, `1h` or a bare number of seconds. Raises ValueError."""
    match = _DURATION.match(text.strip())
    if match is None:
        raise ValueError("must be a duration such as 500ms, 10s, 2m or 1h")
    return float(match[1]) * _UNITS_S[match[2]]


def _flag(field: str) -> str:
    name = {"namespaces": "namespace", "tokenizers": "tokenizer"}.get(field, field.removesuffix("_s"))
    return f"--{name.replace('_', '-')}"


class IndexerConfig(BaseModel):
    """Settings of one index. Durations are seconds, or text with a unit (`500ms`, `10s`, `2m`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "0.0.0.0"
    port: int = Field(default=8090, ge=0, le=65535)
    publishers: Path | None = None
    discover: Literal["kubernetes"] | None = None
    selector: str = "kvsync.dev/kv-events=true"
    namespaces: tuple[str, ...] = ()
    """Namespaces in which discovery looks for pods; empty means the namespace of the service."""
    pool: str | None = Field(default=None, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)
    """InferencePool whose pods discovery follows, in place of those of `selector`."""
    core: Literal["auto", "python", "native"] = "auto"
    trust: Literal["live", "suspect"] = "live"
    topic: str = ""
    learn_from_answers: Literal["on", "off"] = "on"
    """Let routers ask engines to announce prompts again that turn out to be cached and are not known here."""
    stale_after_s: float = Field(default=10.0, gt=0, le=86400)
    replay_timeout_s: float = Field(default=2.0, gt=0, le=3600)
    audit_interval_s: float = Field(default=0.0, ge=0, le=86400)
    """How often every publisher is audited; 0 means only on request."""
    max_blocks: int = Field(default=8_000_000, gt=0)
    """Resident blocks that one publisher may have; blocks beyond it are left out and counted."""
    heartbeats: bool = True
    snapshot_dir: Path | None = None
    snapshot_interval_s: float = Field(default=30.0, gt=0, le=86400)
    bootstrap_from: str | None = Field(default=None, pattern=r"^https?://")
    engine_api_key: SecretStr | None = None
    """Key of the engines' HTTP API, for publishers that have none of their own."""
    curve_secret_key_file: Path | None = None
    """CURVE secret key by which publishers know this index; without it, a new key is made at each start."""
    curve_server_key: str | None = None
    """CURVE public key of publishers that name none; without it, these have no CURVE."""
    token_file: Path | None = None
    """Bearer tokens of the HTTP API; without it, no token is needed."""
    audit_token_file: Path | None = None
    """Tokens of `/v1/audit`, in place of those of `token_file`."""
    dump_token_file: Path | None = None
    """Tokens of blocks, digests and snapshots, in place of those of `token_file`."""
    debug_token: SecretStr | None = None
    """Bearer token of the engines' debug endpoints, which audits read."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    """Certificates that must have signed that of a client, for all paths but health, readiness and metrics."""
    tokenizers: tuple[str, ...] = ()
    """Values of `--tokenizer`: `remote`, `mock` or `hf:PATH`, for one model with `MODEL=` before it."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("stale_after_s", "replay_timeout_s", "audit_interval_s", "snapshot_interval_s", mode="before")
    @classmethod
    def _duration(cls, value: object) -> object:
        return parse_duration(value) if isinstance(value, str) else value

    @field_validator("tokenizers")
    @classmethod
    def _check_tokenizers(cls, flags: tuple[str, ...]) -> tuple[str, ...]:
        parse_flags(flags)
        return flags

    @field_validator("curve_server_key")
    @classmethod
    def _check_server_key(cls, key: str | None) -> str | None:
        return None if key is None else check_key(key)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.publishers is None and self.discover is None:
            raise ValueError("no source of publishers: give --publishers FILE, --discover kubernetes or both")
        if self.pool is not None and self.discover is None:
            raise ValueError("--pool: needs --discover kubernetes")
        if self.pool is not None and (len(self.namespaces) > 1 or "*" in self.namespaces):
            raise ValueError("--pool: selects pods of its own namespace only; give one --namespace")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key: give both or none of them")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("--tls-client-ca: needs --tls-cert and --tls-key")
        return self

    def curve_keys(self) -> CurveKeys:
        """The key pair for publishers with CURVE. Raises ConfigError."""
        path = self.curve_secret_key_file
        try:
            return CurveKeys.of(None if path is None else read_key(path, "secret"))
        except ValueError as error:
            raise ConfigError(f"--curve-secret-key-file {error}") from None

    def tls(self) -> TlsFiles | None:
        """The certificate of the HTTP API, if it has one."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        return TlsFiles(self.tls_cert, self.tls_key, self.tls_client_ca)

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> Self:
        """Validate `values`. Raises ConfigError, which names the flag, the value and what is allowed."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            field, _, rest = describe(error, cls).partition(" = ")
            raise ConfigError(f"{_flag(field)} {rest}" if rest else field) from None

    def socket_settings(self) -> SocketSettings:
        """Options of the ZMQ sockets, with heartbeats frequent enough for `stale_after_s`."""
        if not self.heartbeats:
            return SocketSettings(heartbeat_s=0.0)
        return SocketSettings(
            heartbeat_s=min(1.0, self.stale_after_s / 6), heartbeat_timeout_s=min(3.0, self.stale_after_s / 2)
        )

    def sync_settings(self) -> SyncSettings:
        """Times of the state machines. Without heartbeats, a quiet publisher is probed before it becomes stale."""
        idle = 15.0 if self.heartbeats else min(15.0, self.stale_after_s / 3)
        return SyncSettings(
            stale_after_s=self.stale_after_s, replay_timeout_s=self.replay_timeout_s, verify_idle_s=idle
        )
