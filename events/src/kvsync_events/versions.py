"""vLLM versions as comparable values, and the range of versions whose wire is known.

The codec, the frames and the hashing take the range from here, so that they refuse the same versions with the same
message.
"""

import re
from functools import lru_cache
from typing import Final, Literal, NamedTuple, TypeAlias

from kvsync_events.errors import UnsupportedVersionError

NEWEST_VERSION: Final = "0.33.0"
"""The newest vLLM release whose wire was checked."""

OLDEST_VERSION: Final = "0.9.0"
"""The first vLLM release with KV events."""

_RELEASES: Final = (
    "0.9.0", "0.9.1", "0.9.2", "0.10.0", "0.10.1", "0.10.2", "0.11.0", "0.11.1", "0.11.2", "0.12.0", "0.13.0",
    "0.14.0", "0.14.1", "0.15.0", "0.15.1", "0.16.0", "0.17.0", "0.17.1", "0.18.0", "0.18.1", "0.19.0", "0.19.1",
    "0.20.0", "0.20.1", "0.20.2", "0.22.0", "0.22.1", "0.23.0", "0.24.0", "0.25.0", "0.25.1", "0.26.0", "0.27.0",
    "0.27.1", "0.28.0", "0.29.0", "0.30.0", "0.31.0", "0.32.0", "0.33.0",
)  # fmt: skip


Removals: TypeAlias = Literal["each_copy", "last_copy"]
"""Which removals of blocks an engine announces when a block has several copies."""


class Version(NamedTuple):
    """A release number. Further parts such as `.post1` and `rc1` never changed the wire and are dropped."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


_LAST_COPY_SINCE: Version | None = None
"""The first release that announces only the removal of a last copy. There is none yet: vllm-project/vllm#55092, which
would do so, and #48933, which would name the number of copies left, were both open when 0.33 was the newest release."""


@lru_cache(maxsize=256)
def parse_version(text: str) -> Version:
    """Read a version such as `0.24`, `0.24.0`, `v0.24.0` or `0.24.0.post1`.

    Raises:
        UnsupportedVersionError: the text is not a version, or the version is outside the known range.
    """
    found = re.fullmatch(r"v?(\d{1,4})\.(\d{1,4})(?:\.(\d{1,6}))?(?:[.+-]?[0-9a-z.+]*)?", text.strip())
    if found is None:
        raise UnsupportedVersionError(f"{text!r} is not a vLLM version such as {NEWEST_VERSION}")
    version = Version(int(found[1]), int(found[2]), int(found[3] or 0))
    oldest, newest = _numbers(OLDEST_VERSION), _numbers(NEWEST_VERSION)
    if version < oldest or version[:2] > newest[:2]:
        raise UnsupportedVersionError(
            f"vLLM version {text!r} is not supported; known are {OLDEST_VERSION} to {NEWEST_VERSION}"
        )
    return version


def removals_of(version: str | None) -> Removals | None:
    """Which removals a vLLM version announces; None if that is not known, as for versions outside the known range."""
    try:
        parsed = parse_version(version or "")
    except UnsupportedVersionError:
        return None
    return "last_copy" if _LAST_COPY_SINCE is not None and parsed >= _LAST_COPY_SINCE else "each_copy"


def supported_versions() -> tuple[str, ...]:
    """Return the known releases, oldest first. Version numbers between them are accepted too."""
    return _RELEASES


def _numbers(text: str) -> Version:
    return Version(*(int(part) for part in text.split(".")))
