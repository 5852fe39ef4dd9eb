"""The extension point for fronts: servers that run inside the index's process and answer from the index directly.

A front is an object that a package registers under the entry-point group `kvsync_indexer.fronts`; the router is one.
`kvsync-indexer` takes the front's flags next to its own, and starts the front when they ask for it. The index imports
no front by name and works without any.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, Protocol

import click

from kvsync_indexer.api import MatchAnswer, MatchRequest, PredictionAnswer, PredictionReport, PublisherRow
from kvsync_indexer.errors import ConfigError
from kvsync_indexer.serving import Server

GROUP: Final = "kvsync_indexer.fronts"
PACKAGES: Final = {"--router-": "kvsync-router", "--epp-": "kvsync-router"}
"""Which package brings the flags that begin so, for the message about a flag whose package is not installed."""


class IndexAnswers(Protocol):
    """What a front may ask the index: the HTTP API as method calls, to be used in the index's event loop."""

    async def match(self, request: MatchRequest) -> MatchAnswer:
        """`POST /v1/match`. Raises RequestError where HTTP answers 4xx, and TokenizeError where it answers 503."""
        ...

    def publishers(self) -> list[PublisherRow]:
        """`GET /v1/publishers`."""
        ...

    def api_key(self, publisher: str) -> str | None:
        """The key with which to ask this publisher's engine over HTTP. It is for requests to that engine only."""
        ...

    def record_prediction(self, report: PredictionReport) -> PredictionAnswer:
        """`POST /v1/predictions`. Raises RequestError."""
        ...

    def offer_decisions(self, newest: Callable[[int], Sequence[Mapping[str, Any]]]) -> None:
        """Let the index answer `GET /v1/decisions` with `newest(limit)`, whose rows have the fields of `api.Decision`.

        It is for a front that places requests.
        """
        ...


class OpenFront(Protocol):
    """A front whose flags are valid and whose sockets are bound, before it serves."""

    def server(self, index: IndexAnswers) -> Server:
        """The server of this front. It is called once, in the event loop, and closes the sockets when it ends."""
        ...

    def close(self) -> None:
        """Close the sockets, because the index cannot start after all."""
        ...


class Front(Protocol):
    """A kind of front. Importing its module must be cheap: that happens at every start of `kvsync-indexer`."""

    def options(self) -> Sequence[click.Option]:
        """Flags that `kvsync-indexer` takes for this front."""
        ...

    def open(self, values: Mapping[str, Any], *, host: str, index_port: int) -> OpenFront | None:
        """Check the values of `options()`, by parameter name, and bind the sockets on `host`.

        Returns None if the flags do not ask for this front. Raises ConfigError, which names the flag.
        """
        ...


@dataclass(frozen=True, slots=True)
class FrontRequest:
    """A front together with the values of its flags."""

    front: Front
    values: Mapping[str, Any]


def installed_fronts() -> list[Front]:
    """Every registered front, by name. Raises ConfigError for one that cannot be loaded."""
    return [_load(found) for found in sorted(entry_points(group=GROUP), key=lambda found: found.name)]


def _load(found: EntryPoint) -> Front:
    try:
        front: Front = found.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"the front {found.name!r} ({found.value}) cannot be loaded: {error}") from None
    return front


def package_of_flag(flag: str) -> str | None:
    """The package that brings `flag`, if the flag is one of a known front and that front is not installed.

    An installed front has its flags; a misspelt one is then no sign of a missing package.
    """
    if entry_points(group=GROUP):
        return None
    return next((package for prefix, package in PACKAGES.items() if flag.startswith(prefix)), None)
