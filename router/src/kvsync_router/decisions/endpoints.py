"""The endpoints of a router: which of them are in the rotation, and what is in flight on each.

Health is reported by `kvsync_router.sources.health`. Load is what this router itself has sent, in requests and in
predicted tokens, so that a decision needs no round trip to an engine.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from kvsync_router.decisions.circuit import FAILED_STATUSES, Circuit
from kvsync_router.decisions.models import meaning_of
from kvsync_router.decisions.policies import Candidate

MAX_CONTEXT_TOKENS: Final = 1 << 20
"""Longest context that is predicted if no endpoint lists a shorter one. Pictures in a request have no such length."""
MOST_PASSED: Final = 16
"""Endpoints whose reason for not being considered is remembered."""


@dataclass(frozen=True, slots=True)
class EndpointInfo:
    """One engine rank as a directory describes it; `name` is the name of its publisher in the index."""

    name: str
    url: str
    model: str
    rank: int | None = None
    """Set if several ranks share the URL; it is then sent as `X-data-parallel-rank`."""
    stale: bool = False
    """The index has had no sign of life from the publisher for a while."""
    api_key: str | None = field(default=None, repr=False)
    """Key for the router's own questions to the engine. It is never sent for a client."""


@dataclass(frozen=True, slots=True)
class EndpointLimits:
    """What one endpoint may be given; 0 stands for no limit."""

    requests: int = 0
    """Requests in flight."""
    queued: int = 0
    """Requests in flight whose answer has not begun."""

    def full(self, endpoint: "Endpoint") -> bool:
        """Whether the endpoint may be given no further request."""
        return bool(
            (self.requests and endpoint.requests >= self.requests) or (self.queued and endpoint.queued >= self.queued)
        )


@dataclass(frozen=True, slots=True)
class Survey:
    """Which endpoints can take a request at this moment, and why others cannot."""

    eligible: list["Endpoint"]
    passed: dict[str, str]
    """The reason by name, of endpoints that serve the model. At most `MOST_PASSED`."""
    full: bool = False
    """Every endpoint that could take the request otherwise is at a limit."""


@dataclass(frozen=True, slots=True)
class EndpointStats:
    """A frozen view of one endpoint."""

    name: str
    url: str
    healthy: bool
    requests: int
    queued: int
    prefill_tokens: int
    decode_tokens: int
    assigned_tokens: int
    served: int
    failures: int


@dataclass(slots=True, eq=False)
class Endpoint:
    """The state of one endpoint."""

    info: EndpointInfo
    models: Mapping[str, str | None] = field(default_factory=dict)
    """Models that it serves, each with its base model (None for a base model). Empty until the endpoint was asked."""
    healthy: bool = True
    requests: int = 0
    queued: int = 0
    """Requests in flight whose answer has not begun."""
    prefill_tokens: int = 0
    decode_tokens: int = 0
    assigned_tokens: int = 0
    served: int = 0
    failures: int = 0
    failed_checks: int = 0
    """Health checks in a row that failed."""
    max_model_len: int | None = None
    """Longest prompt and answer together, in tokens, as the engine lists it."""
    wants_key: bool = False
    """It refused to list its models with the key that the router has for it, if any."""
    circuit: Circuit = field(default_factory=Circuit)
    waiting: set[Callable[[], None]] = field(default_factory=set)
    """Called when the endpoint turns out to hang or has left: one per attempt or answer that waits for its bytes."""
    hangs: bool = False
    """It accepts connections, but does not answer `/health`."""
    left: bool = False
    """It is out of the rotation because it hangs, or out of the directory."""
    tells_cached: bool = False
    """It has reported `cached_tokens` once, so an answer without them means that none were cached."""

    @property
    def base_model(self) -> str:
        """The model that its publisher announces."""
        return self.info.model

    def leave(self, *, hangs: bool) -> None:
        """Tell all that wait for bytes of it. Attempts are made elsewhere if it hangs; answers get less patience."""
        self.left, self.hangs = True, hangs
        for interrupt in list(self.waiting):
            interrupt()

    def serves(self, model: str | None) -> bool:
        """Whether it serves `model`; None stands for any model."""
        return model is None or model in self.models or model == self.info.model


class Ticket:
    """The share of one attempt in the load of an endpoint. Calling a method again has no effect."""

    __slots__ = ("_context_tokens", "_done", "_prefill_tokens", "_queued", "endpoint")

    def __init__(self, endpoint: Endpoint, uncached_tokens: int, context_tokens: int) -> None:
        self.endpoint = endpoint
        self._prefill_tokens = uncached_tokens
        self._context_tokens = context_tokens
        self._done = False
        self._queued = True
        endpoint.requests += 1
        endpoint.queued += 1
        endpoint.prefill_tokens += uncached_tokens
        endpoint.decode_tokens += context_tokens
        endpoint.assigned_tokens += uncached_tokens

    def prefilled(self) -> None:
        """The first byte of the answer has come, so the prompt is computed."""
        self.endpoint.prefill_tokens -= self._prefill_tokens
        self._prefill_tokens = 0
        self.endpoint.queued -= self._queued
        self._queued = False

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

    def __init__(self, clock: Callable[[], float], limits: EndpointLimits = EndpointLimits()) -> None:
        self._clock = clock
        self._limits = limits
        self._endpoints: dict[str, Endpoint] = {}
        self._by_name: tuple[Endpoint, ...] = ()

    def __len__(self) -> int:
        return len(self._endpoints)

    def update(self, infos: Iterable[EndpointInfo]) -> None:
        """Make the table equal to `infos`. An endpoint that is removed gets no more requests; those in flight go on."""
        wanted = {info.name: info for info in infos}
        for name in self._endpoints.keys() - wanted.keys():
            self._endpoints.pop(name).leave(hangs=False)
        for name, info in wanted.items():
            known = self._endpoints.get(name)
            if known is not None and known.info.url != info.url:
                known.leave(hangs=False)
                known = None
            if known is None:
                self._endpoints[name] = Endpoint(info)
            else:
                known.info = info
        self._by_name = tuple(self._endpoints[name] for name in sorted(self._endpoints))

    def all(self) -> tuple[Endpoint, ...]:
        """Every endpoint, by name."""
        return self._by_name

    def get(self, name: str) -> Endpoint | None:
        """The endpoint called `name`, if there is one."""
        return self._endpoints.get(name)

    def knows_model(self, model: str | None) -> bool:
        """Whether any endpoint, in the rotation or not, serves `model`."""
        return any(endpoint.serves(model) for endpoint in self._endpoints.values())

    def base_model(self, model: str) -> tuple[str, str | None]:
        """(base model, adapter) behind the model name of a request."""
        return meaning_of(model, self._endpoints.values())

    def context_limit(self, model: str | None) -> int:
        """Longest prompt and answer together that is predicted for `model`, in tokens.

        It is the longest that any of its endpoints lists, so that none looks idle or busy by what it lists itself.
        """
        listed = [one.max_model_len for one in self._endpoints.values() if one.max_model_len and one.serves(model)]
        return min(max(listed, default=MAX_CONTEXT_TOKENS), MAX_CONTEXT_TOKENS)

    def rotation(
        self, model: str | None, excluded: Collection[str] = (), subset: frozenset[str] | None = None
    ) -> list[Endpoint]:
        """Healthy endpoints of `subset`, which has names, that serve `model`, by name, without `excluded`.

        Endpoints whose circuit is open are only returned if there is no other.
        """
        now = self._clock()
        healthy = [
            endpoint
            for endpoint in self._by_name
            if endpoint.healthy
            and endpoint.info.name not in excluded
            and endpoint.serves(model)
            and (subset is None or endpoint.info.name in subset)
        ]
        return [endpoint for endpoint in healthy if endpoint.circuit.admits(now)] or healthy

    def survey(self, model: str | None, excluded: Collection[str], subset: frozenset[str] | None) -> Survey:
        """The endpoints that can take a request for `model` within `subset`, without those `excluded`.

        If every one that could be tried is excluded, they are tried once more. Limits are never exceeded.
        """
        allowed = self.rotation(model, excluded, subset) or self.rotation(model, subset=subset)
        eligible = [endpoint for endpoint in allowed if not self._limits.full(endpoint)]
        passed: dict[str, str] = {}
        if len(eligible) < len(self._by_name):
            names = {endpoint.info.name for endpoint in eligible}
            for endpoint in self._by_name:
                if endpoint.info.name not in names and endpoint.serves(model) and len(passed) < MOST_PASSED:
                    passed[endpoint.info.name] = self._obstacle(endpoint, excluded, subset)
        return Survey(eligible, passed, full=bool(allowed) and not eligible)

    def _obstacle(self, endpoint: Endpoint, excluded: Collection[str], subset: frozenset[str] | None) -> str:
        if not endpoint.healthy:
            return "hangs" if endpoint.hangs else "out of the rotation"
        if endpoint.info.name in excluded:
            return "was tried"
        if subset is not None and endpoint.info.name not in subset:
            return "not in the subset"
        return "at its limit" if self._limits.full(endpoint) else "its circuit is open"

    def mark_down(self, endpoint: Endpoint, *, cut_off: bool = False) -> None:
        """Take the endpoint out of the rotation until `mark_up`.

        An endpoint that refuses connections may be shutting down and still finish what it has. One that is `cut_off`
        does not react at all, so attempts that wait for it end now.
        """
        endpoint.failures += 1
        endpoint.healthy = False
        if cut_off:
            endpoint.leave(hangs=True)

    def mark_up(self, endpoint: Endpoint) -> None:
        """Return the endpoint to the rotation; its cache is assumed to be empty."""
        endpoint.healthy = True
        endpoint.failed_checks = 0
        endpoint.left = endpoint.hangs = False
        endpoint.assigned_tokens = 0

    def checked(self, endpoint: Endpoint, *, well: bool, allowed: int) -> bool:
        """Take the outcome of a health check. Returns whether the endpoint leaves the rotation because of it.

        It leaves after `allowed` failures in a row, and after the first one if the index has no sign of life either.
        """
        endpoint.failed_checks = 0 if well else endpoint.failed_checks + 1
        if well or not endpoint.healthy or endpoint.failed_checks < (1 if endpoint.info.stale else allowed):
            return False
        self.mark_down(endpoint, cut_off=True)
        return True

    def reserve(
        self, endpoint: Endpoint, model: str | None, prompt_tokens: int, matched_tokens: int, output_tokens: int
    ) -> Ticket:
        """A request is sent to the endpoint. Returns its share in the endpoint's load."""
        longest = self.context_limit(model)
        prompt = min(prompt_tokens, longest)
        endpoint.circuit.begin(self._clock())
        return Ticket(endpoint, max(prompt - matched_tokens, 0), min(prompt + output_tokens, longest))

    def answered(self, endpoint: Endpoint, status: int) -> bool:
        """A request was answered with `status`. Returns whether that opened the circuit."""
        if status in FAILED_STATUSES:
            return self.failed(endpoint)
        endpoint.circuit.succeeded()
        return False

    def failed(self, endpoint: Endpoint) -> bool:
        """A request failed before the first byte of its answer. Returns whether that opened the circuit."""
        endpoint.failures += 1
        return endpoint.circuit.failed(self._clock())

    def statistics(self) -> list[EndpointStats]:
        """A frozen view of every endpoint, by name."""
        return [
            EndpointStats(
                name=endpoint.info.name,
                url=endpoint.info.url,
                healthy=endpoint.healthy,
                requests=endpoint.requests,
                queued=endpoint.queued,
                prefill_tokens=endpoint.prefill_tokens,
                decode_tokens=endpoint.decode_tokens,
                assigned_tokens=endpoint.assigned_tokens,
                served=endpoint.served,
                failures=endpoint.failures,
            )
            for endpoint in self.all()
        ]


def candidate(endpoint: Endpoint, matched_tokens: int, saved_tokens: float | None = None) -> Candidate:
    """The endpoint as a policy sees it."""
    return Candidate(
        name=endpoint.info.name,
        matched_tokens=matched_tokens,
        requests=endpoint.requests,
        prefill_tokens=endpoint.prefill_tokens,
        decode_tokens=endpoint.decode_tokens,
        assigned_tokens=endpoint.assigned_tokens,
        saved_tokens=saved_tokens,
    )
