"""The endpoints of a router: which of them are in the rotation, and what is in flight on each.

Health is reported by `kvsync_router.sources.health`. Load is what this router itself has sent, in requests and in
predicted tokens, so that a decision needs no round trip to an engine.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from kvsync_router.decisions.policies import Candidate


@dataclass(frozen=True, slots=True)
class EndpointInfo:
    """One engine rank as a directory describes it; `name` is the name of its publisher in the index."""

    name: str
    url: str
    model: str
    rank: int | None = None
    """Set if several ranks share the URL; it is then sent as `X-data-parallel-rank`."""


@dataclass(frozen=True, slots=True)
class EndpointStats:
    """A frozen view of one endpoint."""

    name: str
    url: str
    healthy: bool
    requests: int
    prefill_tokens: int
    decode_tokens: int
    assigned_tokens: int
    served: int
    failures: int


@dataclass(slots=True)
class Endpoint:
    """The state of one endpoint."""

    info: EndpointInfo
    models: Mapping[str, str | None] = field(default_factory=dict)
    """Models that it serves, each with its base model (None for a base model). Empty until the endpoint was asked."""
    healthy: bool = True
    requests: int = 0
    prefill_tokens: int = 0
    decode_tokens: int = 0
    assigned_tokens: int = 0
    served: int = 0
    failures: int = 0
    tells_cached: bool = False
    """It has reported `cached_tokens` once, so an answer without them means that none were cached."""

    def serves(self, model: str | None) -> bool:
        """Whether it serves `model`; None stands for any model."""
        return model is None or model in self.models or model == self.info.model


class Ticket:
    """The share of one attempt in the load of an endpoint. Calling a method again has no effect."""

    __slots__ = ("_context_tokens", "_done", "_prefill_tokens", "endpoint")

    def __init__(self, endpoint: Endpoint, uncached_tokens: int, context_tokens: int) -> None:
        self.endpoint = endpoint
        self._prefill_tokens = uncached_tokens
        self._context_tokens = context_tokens
        self._done = False
        endpoint.requests += 1
        endpoint.prefill_tokens += uncached_tokens
        endpoint.decode_tokens += context_tokens
        endpoint.assigned_tokens += uncached_tokens

    def prefilled(self) -> None:
        """The first byte of the answer has come, so the prompt is computed."""
        self.endpoint.prefill_tokens -= self._prefill_tokens
        self._prefill_tokens = 0

    def finish(self) -> None:
        """The attempt is over, successful or not."""
        if not self._done:
            self._done = True
            self.prefilled()
            self.endpoint.requests -= 1
            self.endpoint.decode_tokens -= self._context_tokens
            self.endpoint.served += 1


class EndpointTable:
    """All endpoints, by name."""

    def __init__(self) -> None:
        self._endpoints: dict[str, Endpoint] = {}

    def __len__(self) -> int:
        return len(self._endpoints)

    def update(self, infos: Iterable[EndpointInfo]) -> None:
        """Make the table equal to `infos`. An endpoint that is removed gets no more requests; those in flight go on."""
        wanted = {info.name: info for info in infos}
        for name in self._endpoints.keys() - wanted.keys():
            del self._endpoints[name]
        for name, info in wanted.items():
            known = self._endpoints.get(name)
            if known is None or known.info.url != info.url:
                self._endpoints[name] = Endpoint(info)
            else:
                known.info = info

    def all(self) -> list[Endpoint]:
        """Every endpoint, by name."""
        return [self._endpoints[name] for name in sorted(self._endpoints)]

    def get(self, name: str) -> Endpoint | None:
        """The endpoint called `name`, if there is one."""
        return self._endpoints.get(name)

    def knows_model(self, model: str | None) -> bool:
        """Whether any endpoint, in the rotation or not, serves `model`."""
        return any(endpoint.serves(model) for endpoint in self._endpoints.values())

    def base_model(self, model: str) -> tuple[str, str | None]:
        """(base model, adapter) behind the model name of a request."""
        for endpoint in self._endpoints.values():
            parent = endpoint.models.get(model)
            if parent is not None:
                return parent, model
        return model, None

    def rotation(self, model: str | None, excluded: Collection[str] = ()) -> list[Endpoint]:
        """Healthy endpoints that serve `model`, by name, without `excluded`."""
        return [
            endpoint
            for endpoint in self.all()
            if endpoint.healthy and endpoint.info.name not in excluded and endpoint.serves(model)
        ]

    def mark_down(self, endpoint: Endpoint) -> None:
        """Take the endpoint out of the rotation until `mark_up`."""
        endpoint.failures += 1
        endpoint.healthy = False

    def mark_up(self, endpoint: Endpoint) -> None:
        """Return the endpoint to the rotation; its cache is assumed to be empty."""
        endpoint.healthy = True
        endpoint.assigned_tokens = 0

    def statistics(self) -> list[EndpointStats]:
        """A frozen view of every endpoint, by name."""
        return [
            EndpointStats(
                name=endpoint.info.name,
                url=endpoint.info.url,
                healthy=endpoint.healthy,
                requests=endpoint.requests,
                prefill_tokens=endpoint.prefill_tokens,
                decode_tokens=endpoint.decode_tokens,
                assigned_tokens=endpoint.assigned_tokens,
                served=endpoint.served,
                failures=endpoint.failures,
            )
            for endpoint in self.all()
        ]


def candidate(endpoint: Endpoint, matched_tokens: int) -> Candidate:
    """The endpoint as a policy sees it."""
    return Candidate(
        name=endpoint.info.name,
        matched_tokens=matched_tokens,
        requests=endpoint.requests,
        prefill_tokens=endpoint.prefill_tokens,
        decode_tokens=endpoint.decode_tokens,
        assigned_tokens=endpoint.assigned_tokens,
    )
