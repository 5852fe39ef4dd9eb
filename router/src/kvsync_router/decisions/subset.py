"""Subset hints: the endpoints to which a gateway or a client restricts one request.

The value is that of Envoy's `x-gateway-destination-endpoint-subset`: addresses such as `10.0.0.5:8000`, as one string
separated by commas (a header, or metadata) or as a list (metadata). A name of an endpoint is accepted as well.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Final, Protocol
from urllib.parse import urlsplit

SUBSET_HEADER: Final = "x-gateway-destination-endpoint-subset"
MOST: Final = 4096
"""Addresses of one hint that are read; a longer list is cut, which can only restrict a request further."""


class Addressed(Protocol):
    """What a hint is compared with."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def url(self) -> str: ...  # noqa: D102


def parse_subset(hint: str | Iterable[str] | None) -> frozenset[str] | None:
    """The addresses in a hint. None without a hint; an empty set for an empty hint, which allows no endpoint."""
    if hint is None:
        return None
    parts = hint.split(",", MOST)[:MOST] if isinstance(hint, str) else map(str, islice(hint, MOST))
    return frozenset(stripped for part in parts if (stripped := part.strip()))


def allows(subset: frozenset[str] | None, endpoint: Addressed) -> bool:
    """Whether the hint allows the endpoint. No hint allows every endpoint."""
    return subset is None or endpoint.name in subset or urlsplit(endpoint.url).netloc in subset
