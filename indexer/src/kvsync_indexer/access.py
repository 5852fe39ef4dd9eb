"""Who may ask what over HTTP: bearer tokens, by area of the API.

Health, readiness, metrics, the description and the page are open. A file may hold several tokens, so that a new one can
be added before the old one is removed, and is read again when it changes.
"""

import hmac
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final

import structlog

from kvsync_indexer.engine_keys import read_secrets
from kvsync_indexer.errors import ConfigError

RECHECK_S: Final = 1.0
"""How often a token file is checked for changes, while there are requests."""
_SCHEME: Final = b"bearer "

_log = structlog.get_logger("kvsync_indexer.access")


class Area(StrEnum):
    """A part of the API with tokens of its own."""

    QUERY = "query"
    """Matches, publishers and predictions, and whatever has no other area."""
    AUDIT = "audit"
    """Audits, which ask every engine for its block table, and resyncs, which ask an engine for its history."""
    DUMP = "dump"
    """Blocks, digests and snapshots: what other tenants have cached."""


FLAGS: Final = {Area.QUERY: "--token-file", Area.AUDIT: "--audit-token-file", Area.DUMP: "--dump-token-file"}


def area_of(path: str) -> Area | None:
    """The area of a path; None if it is open."""
    if not path.startswith("/v1"):
        return None
    if path.startswith("/v1/audit"):
        return Area.AUDIT
    if path.startswith("/v1/snapshot"):
        return Area.DUMP
    if path.startswith("/v1/publishers/") and path.rstrip("/").endswith(("/blocks", "/digest")):
        return Area.DUMP
    if path.startswith("/v1/publishers/") and path.rstrip("/").endswith("/resync"):
        return Area.AUDIT
    return Area.QUERY


class TokenFile:
    """The tokens in a file."""

    def __init__(self, flag: str, path: Path, clock: Callable[[], float]) -> None:
        """Read it. Raises ConfigError."""
        self._flag = flag
        self._path = path
        self._clock = clock
        self._stamp = self._read_stamp()
        self._tokens = [token.encode() for token in read_secrets(flag, path)]
        self._checked_at = clock()

    @property
    def first(self) -> str:
        """The first token, for requests to other indexes with the same tokens."""
        self._refresh()
        return self._tokens[0].decode()

    def accepts(self, token: bytes) -> bool:
        """Whether it is one of the tokens. The time that this takes does not depend on how much of it is right."""
        self._refresh()
        return sum(hmac.compare_digest(token, each) for each in self._tokens) > 0

    def _refresh(self) -> None:
        now = self._clock()
        if now - self._checked_at < RECHECK_S:
            return
        self._checked_at = now
        stamp = self._read_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._tokens = [token.encode() for token in read_secrets(self._flag, self._path)]
        except ConfigError as error:
            _log.error("tokens_kept", problem=str(error))

    def _read_stamp(self) -> tuple[int, int, int] | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


class Access:
    """Decides about requests. Areas without a file have the tokens of `Area.QUERY`; without those they are open."""

    def __init__(self, files: Mapping[Area, Path | None], clock: Callable[[], float]) -> None:
        """Read the files. Raises ConfigError."""
        self._files = {area: TokenFile(FLAGS[area], path, clock) for area, path in files.items() if path is not None}

    @property
    def limited(self) -> bool:
        """Whether any token is needed for anything."""
        return bool(self._files)

    def token(self, area: Area) -> str | None:
        """A token for this area, None if it needs none."""
        file = self._file(area)
        return None if file is None else file.first

    def allows(self, path: str, authorization: bytes | None) -> bool:
        """Whether a request with this `Authorization` header may be answered."""
        area = area_of(path)
        file = None if area is None else self._file(area)
        if file is None:
            return True
        if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
            return False
        return file.accepts(authorization[len(_SCHEME) :].strip())

    def _file(self, area: Area) -> TokenFile | None:
        return self._files.get(area) or self._files.get(Area.QUERY)
