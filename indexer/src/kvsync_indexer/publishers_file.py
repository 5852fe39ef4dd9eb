"""The publishers file: a YAML list of publishers that is checked as a whole and read again when it changes.

A file that cannot be used ends a program at its start (ConfigError, exit code 2). A bad version that appears later is
logged, and the publishers of the last good version stay.
"""

import difflib
import re
from collections import Counter
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from kvsync_events.curve import check_key
from kvsync_indexer.addresses import forbidden
from kvsync_indexer.api.prompts import uses_harmony
from kvsync_indexer.errors import ConfigError
from kvsync_indexer.publishers import ChatFormat, PublisherSpec
from kvsync_indexer.tokenizer_choice import TokenizerChoice, parse_choice

MAX_FILE_BYTES = 16 << 20
_TCP = re.compile(r"^tcp://(\*|\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.:-]+):(\d{1,5})$")


class PublisherEntry(BaseModel):
    """One entry of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(min_length=1, max_length=300)
    """Name in answers and metrics, unique in the file. `POD/RANK` implies the pod and the rank."""
    model: str = Field(min_length=1, max_length=1000)
    """Name of the base model under which queries ask, as the engine serves it."""
    endpoint: str
    """Event socket: `tcp://HOST:PORT` or `ipc://PATH`. Each data-parallel rank has its own."""
    replay_endpoint: str | None = None
    """Replay socket of the engine. Without it, the index cannot ask for lost batches."""
    rank: int | None = Field(default=None, ge=0, le=65535)
    """Data-parallel rank; by default the number at the end of the name, else 0."""
    pod: str | None = Field(default=None, max_length=300)
    """Name of the server to which ranks belong; by default the name without the rank."""
    epoch: str | None = Field(default=None, max_length=1000)
    """Identity of the engine process, if the file can know it. A new value drops the entries of the old one."""
    bind: bool = False
    """Bind the endpoint instead of connecting to it, for engines whose publisher connects."""
    topic: str | None = None
    """Subscription prefix, in place of `--topic`; the empty text is every topic."""
    debug_url: str | None = Field(default=None, pattern=r"^https?://")
    """Base URL of the engine's `/debug/kv`, which mock engines have; audits need it."""
    http_url: str | None = Field(default=None, pattern=r"^https?://")
    """Base URL of the engine's HTTP API: the router sends requests there, and texts are tokenized there."""
    removals: Literal["auto", "each_copy", "last_copy"] = "auto"
    """Which removals the engine announces for a block that has several copies; auto: as its version says."""
    api_key: SecretStr | None = Field(default=None, min_length=1, max_length=4096)
    """Key of the engine's HTTP API, for engines that were started with `--api-key`."""

    tokenizer: str | None = Field(default=None, max_length=1000)
    """`remote`, `mock` or `hf:PATH`; publishers of one model have the same."""
    server_key: str | None = None
    """CURVE public key of the publisher (Z85), if its sockets are encrypted."""
    chat_format: ChatFormat | None = None
    """How the engine renders chats; by default `harmony` if the model's name says gpt-oss, else `template`."""
    exclude_tools_when_tool_choice_none: bool = False
    """The engine was started with this flag of vLLM."""

    @field_validator("tokenizer")
    @classmethod
    def _check_tokenizer(cls, text: str | None) -> str | None:
        if text is not None:
            parse_choice(text)
        return text

    @field_validator("server_key")
    @classmethod
    def _check_server_key(cls, key: str | None) -> str | None:
        return None if key is None else check_key(key)

    @model_validator(mode="after")
    def _check_endpoints(self) -> Self:
        check_endpoint("endpoint", self.endpoint, bind=self.bind)
        if self.replay_endpoint is not None:
            check_endpoint("replay_endpoint", self.replay_endpoint, bind=False)
        for name, url in (("http_url", self.http_url), ("debug_url", self.debug_url)):
            if url is not None and forbidden(urlsplit(url).hostname or ""):
                raise ValueError(f"{name} {url!r} is a link-local or metadata address")
        return self

    def spec(self, name: str) -> PublisherSpec:
        """The publisher that the entry describes, under a name that is unique in the file."""
        pod, _, tail = name.rpartition("/")
        implied = tail.isdigit() and bool(pod)
        return PublisherSpec(
            name=name,
            model=self.model,
            endpoint=self.endpoint,
            pod=self.pod or (pod if implied else name),
            rank=self.rank if self.rank is not None else (int(tail) if implied else 0),
            replay_endpoint=self.replay_endpoint,
            bind=self.bind,
            topic=self.topic,
            epoch=self.epoch,
            debug_url=self.debug_url.rstrip("/") if self.debug_url else None,
            removals=None if self.removals == "auto" else self.removals,
            http_url=self.http_url.rstrip("/") if self.http_url else None,
            api_key=self.api_key.get_secret_value() if self.api_key else None,
            server_key=self.server_key,
            tokenizer=parse_choice(self.tokenizer) if self.tokenizer else None,
            chat_format=self.chat_format or ("harmony" if uses_harmony(self.model) else "template"),
            excludes_tools=self.exclude_tools_when_tool_choice_none,
        )


def check_endpoint(field: str, endpoint: str, *, bind: bool) -> None:
    """Check that ZMQ can use the endpoint. Raises ValueError."""
    if endpoint.startswith(("ipc://", "inproc://")) and len(endpoint) > len("inproc://"):
        return
    match = _TCP.match(endpoint)
    if match is None or not 0 < int(match[2]) <= 65535:
        raise ValueError(f"{field} {endpoint!r} must be tcp://host:port or ipc://path")
    if not bind and forbidden(match[1]):
        raise ValueError(f"{field} {endpoint!r} is a link-local or metadata address")
    if match[1] == "*" and not bind:
        raise ValueError(f"{field} {endpoint!r} has a wildcard, which can only be bound: set bind: true or name a host")


def parse_publishers(text: str, origin: str) -> list[PublisherSpec]:
    """The publishers in the text of a file. Raises ConfigError, whose message starts with `origin`."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin}: not YAML: {' '.join(str(error).split())}") from None
    if isinstance(document, dict) and set(document) == {"publishers"}:
        document = document["publishers"]
    if document is None:
        return []
    if not isinstance(document, list):
        raise ConfigError(f"{origin}: must be a list of publishers, not {type(document).__name__}")
    entries = [_entry(item, f"{origin}: entry {number}") for number, item in enumerate(document, 1)]
    return _named(entries, origin)


def _entry(item: object, where: str) -> PublisherEntry:
    if not isinstance(item, dict):
        raise ConfigError(f"{where}: must be a mapping with name, model and endpoint, not {item!r:.80}")
    try:
        return PublisherEntry.model_validate(item)
    except ValidationError as error:
        raise ConfigError(f"{where}: {describe(error, PublisherEntry)}") from None


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem of a validation error, without its origin: the field, the value and what is allowed."""
    problems = error.errors(include_url=False)
    first = next((each for each in problems if each["type"] == "extra_forbidden"), problems[0])
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(field, model.model_fields, n=1)
        hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(model.model_fields)}"
        return f"unknown field {field!r} ({hint})"
    if first["type"] == "missing":
        return f"field {field!r} is required"
    text = first["msg"].removeprefix("Value error, ")
    return f"{field} = {first['input']!r:.200}: {text}" if field else text


def _named(entries: list[PublisherEntry], origin: str) -> list[PublisherSpec]:
    """Give every entry a unique name: entries that share one get their rank added to it (`pod/1`)."""
    shared = Counter(entry.name for entry in entries)
    specs: dict[str, PublisherSpec] = {}
    tokenizers: dict[str, TokenizerChoice] = {}
    for number, entry in enumerate(entries, 1):
        several = shared[entry.name] > 1 and entry.rank is not None
        name = f"{entry.name}/{entry.rank}" if several else entry.name
        if name in specs:
            raise ConfigError(f"{origin}: entry {number}: name {name!r} is used twice (give the entries other ranks)")
        spec = specs[name] = entry.spec(name)
        if spec.tokenizer is not None and tokenizers.setdefault(spec.model, spec.tokenizer) != spec.tokenizer:
            raise ConfigError(f"{origin}: entry {number}: model {spec.model!r} has two different tokenizers")
    return list(specs.values())


class PublishersFile:
    """A publishers file that is followed for changes of its time, its size or its inode."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failures = 0
        self._stamp: tuple[int, int, int] | None = None

    def read(self) -> list[PublisherSpec]:
        """Read the file now. Raises ConfigError."""
        origin = f"--publishers {self.path}"
        try:
            stat = self.path.stat()
            self._stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if stat.st_size > MAX_FILE_BYTES:
                raise ConfigError(f"{origin}: {stat.st_size} bytes, at most {MAX_FILE_BYTES} are allowed")
            text = self.path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{origin}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise ConfigError(f"{origin}: not UTF-8 ({error.reason} at byte {error.start})") from None
        return parse_publishers(text, origin)

    def poll(self) -> list[PublisherSpec] | None:
        """The publishers if the file has changed, else None. Raises ConfigError once per bad version."""
        try:
            stat = self.path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except OSError as error:
            if self._stamp is None:
                return None
            self._stamp = None
            self.failures += 1
            raise ConfigError(f"--publishers {self.path}: {error.strerror}") from None
        if stamp == self._stamp:
            return None
        try:
            return self.read()
        except ConfigError:
            self.failures += 1
            raise
