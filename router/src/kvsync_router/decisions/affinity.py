"""Session affinity: all requests of one session go to the same endpoint while that endpoint can take them.

The endpoint is found by rendezvous hashing, so no table is kept: every replica of a router finds the same one, and when
an endpoint leaves, only its own sessions move.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Final, Literal

from kvsync_router.decisions.policies import Candidate

FORMS: Final = "off, user, header:NAME or cookie:NAME"


@dataclass(frozen=True, slots=True)
class SessionSource:
    """Where a request names its session: in its `user` field, in a header, or in a cookie."""

    kind: Literal["user", "header", "cookie"]
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> "SessionSource | None":
        """Read a setting; None for `off`. Raises ValueError, which names the allowed forms."""
        kind, _, name = text.partition(":")
        if text == "off":
            return None
        if text == "user":
            return cls("user")
        if name and kind == "header":
            return cls("header", name.lower())
        if name and kind == "cookie":
            return cls("cookie", name)
        raise ValueError(f"session affinity {text!r}: allowed are {FORMS}")

    def session(self, header: Callable[[str], str | None], user: object) -> str | None:
        """The session of a request, whose headers `header` looks up by lower-case name; None if it names none."""
        if self.kind == "user":
            return user if isinstance(user, str) and user else None
        if self.kind == "header":
            return header(self.name) or None
        try:
            cookie = SimpleCookie(header("cookie") or "").get(self.name)
        except CookieError:
            return None
        return cookie.value if cookie is not None and cookie.value else None


def home(session: str, candidates: Sequence[Candidate]) -> Candidate:
    """The candidate to which the session belongs; `candidates` is not empty."""
    start = hashlib.blake2b(session.encode("utf-8", "surrogateescape"), digest_size=8)

    def weight(candidate: Candidate) -> tuple[bytes, str]:
        own = start.copy()
        own.update(candidate.name.encode())
        return own.digest(), candidate.name

    return max(candidates, key=weight)
