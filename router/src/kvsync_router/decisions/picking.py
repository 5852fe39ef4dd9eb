"""From a request to an endpoint: ask the index if the policy needs it, and fall back to load if it does not answer."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from kvsync_router.config import RouterConfig
from kvsync_router.decisions.affinity import home
from kvsync_router.decisions.endpoints import Endpoint, EndpointTable, candidate
from kvsync_router.decisions.journal import DecisionRecord, Journal
from kvsync_router.decisions.policies import FALLBACK_POLICY, Candidate, Policy, make_policy
from kvsync_router.decisions.regret import Regret, regret_of
from kvsync_router.decisions.requests import InferenceRequest, match_request
from kvsync_router.decisions.scoring import Score, Scorer
from kvsync_router.decisions.speculation import Speculation
from kvsync_router.decisions.tiers import TierWeights
from kvsync_router.errors import RequestRefusedError, ScorerUnavailableError


@dataclass(frozen=True, slots=True)
class Hints:
    """What a request says about its place, besides its prompt."""

    subset: frozenset[str] | None = None
    """Names of the only endpoints that it may go to; None for any."""
    session: str | None = None
    """The session to which it belongs, if sessions keep their endpoint."""
    home: str | None = None
    """The endpoint that stores what the request continues."""


NO_HINTS = Hints()


@dataclass(frozen=True, slots=True)
class RoutingDecision:
    """How one request is to be placed, whichever endpoint is tried first."""

    policy: Policy
    prompt_tokens: int
    record: DecisionRecord
    """What happens to the request, for those who ask why."""
    score: Score = field(default_factory=Score)
    fallback: str | None = None
    """Why another policy than the configured one decides."""
    skips_cache: bool = False
    """The engine computes the whole prompt, so nothing is hit wherever it goes."""
    hints: Hints = NO_HINTS
    chain: tuple[int, ...] = ()
    """Hashes of the beginnings of the prompt, for speculative entries."""
    exact_tokens: bool = False
    """`prompt_tokens` is the length of the prompt, not an estimate."""

    @property
    def matched_tokens(self) -> Mapping[str, int]:
        """Matched tokens per trusted endpoint; an endpoint that the index does not list is absent."""
        return self.score.matched_tokens

    @property
    def unknown(self) -> str | None:
        """Why nobody can tell how much of this prompt is cached anywhere."""
        return self.score.unknown

    def predicted_tokens(self, endpoint: str) -> int | None:
        """Prompt tokens that the endpoint is predicted to find cached; None if there is no prediction."""
        return 0 if self.skips_cache else self.matched_tokens.get(endpoint)

    def regret(self, reported_tokens: int | None = None, prompt_tokens: int | None = None) -> Regret | None:
        """The figures about the hit of this request, which was answered by the endpoint that was picked last.

        `reported_tokens` and `prompt_tokens` are those of the answer, if it has them.
        """
        if prompt_tokens is None and self.exact_tokens:
            prompt_tokens = self.prompt_tokens
        return regret_of(
            self.matched_tokens,
            self.record.eligible,
            self.record.chosen,
            block_size=self.score.block_size,
            prompt_tokens=prompt_tokens,
            reported_tokens=reported_tokens,
        )


class Picker:
    """Places requests on the endpoints of a table."""

    def __init__(
        self,
        config: RouterConfig,
        table: EndpointTable,
        scorer: Scorer,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        """`clock` is monotonic, `wall_clock` gives the time of the records."""
        self._table = table
        self._scorer = scorer
        self._policy = make_policy(config.policy, config.seed, config.prefill_weight, config.decode_weight)
        self._fallback = make_policy(FALLBACK_POLICY, config.seed)
        self._tiers = TierWeights(config.tier_weights)
        self._retry_after_s = config.retry_after_s
        self.speculation = Speculation(config.speculative_ttl_s, clock)
        self.journal = Journal(wall_clock)

    async def decide(self, request: InferenceRequest, hints: Hints = NO_HINTS) -> RoutingDecision:
        """Decide how the request is to be placed. This works with and without an index that answers."""
        policy, tokens = self._policy, request.estimated_tokens
        score, fallback = Score(), None
        chain: tuple[int, ...] = ()
        if policy.needs_match and request.model is not None and not request.skips_cache:
            question = match_request(request, *self._table.base_model(request.model))
            if question is None:
                score = Score(unknown=request.unknown)
            else:
                chain = self.speculation.chain(question)
                try:
                    score = await self._scorer.score(question)
                except ScorerUnavailableError as error:
                    policy, fallback = self._fallback, str(error)
        return RoutingDecision(
            policy,
            tokens,
            self.journal.open(request.model, policy, tokens, score.distrusted),
            score=score,
            fallback=fallback,
            skips_cache=request.skips_cache and policy.needs_match and request.model is not None,
            hints=hints,
            chain=chain,
            exact_tokens=request.prompt.token_ids is not None,
        )

    def check_model(self, model: str | None) -> None:
        """Raise RequestRefusedError with status 404 if no endpoint serves the model."""
        if len(self._table) and not self._table.knows_model(model):
            raise RequestRefusedError(
                404, f"The model `{model}` does not exist.", "NotFoundError", param="model", code="404"
            )

    def pick(
        self, decision: RoutingDecision, model: str | None, tried: Collection[str] = ()
    ) -> tuple[Endpoint, int] | None:
        """The next endpoint to try, and its matched tokens. One that failed is tried again only if no other is left.

        None if no endpoint in the rotation serves the model. Raises RequestRefusedError with status 429 if those that
        do are all at their limits.
        """
        survey = self._table.survey(model, tried, decision.hints.subset)
        record = decision.record
        if not survey.eligible:
            record.passed = survey.passed
            if survey.full:
                raise RequestRefusedError(
                    429, "every engine is busy", "rate_limit_error", code="429", retry_after_s=self._retry_after_s
                )
            return None
        candidates = self._candidates(decision, survey.eligible)
        tied = _tied(decision.hints, candidates)
        chosen, reason = tied or (decision.policy.choose(decision.prompt_tokens, candidates), "")
        record.tied_by = reason
        if not record.chosen:
            record.passed = survey.passed
            record.consider(candidates, chosen)
            self.journal.add(record)
        record.chosen = chosen.name
        regret = decision.regret()
        record.predicted_tokens = decision.predicted_tokens(chosen.name)
        record.available_tokens = None if regret is None else regret.available
        self.speculation.placed(decision.chain, chosen.name)
        endpoint = next(endpoint for endpoint in survey.eligible if endpoint.info.name == chosen.name)
        return endpoint, chosen.matched_tokens

    def failed(self, decision: RoutingDecision, endpoint: Endpoint, reason: str) -> None:
        """An attempt at the endpoint failed."""
        decision.record.failed[endpoint.info.name] = f"failed: {reason}"
        self.speculation.failed(endpoint.info.name)

    def _candidates(self, decision: RoutingDecision, endpoints: list[Endpoint]) -> list[Candidate]:
        score, assumed = decision.score, self.speculation.matched_tokens(decision.chain)
        if not score.tiers and not assumed:
            return [candidate(endpoint, score.matched_tokens.get(endpoint.info.name, 0)) for endpoint in endpoints]
        rows = []
        for endpoint in endpoints:
            name = endpoint.info.name
            matched = score.matched_tokens.get(name, 0)
            saved = self._tiers.saved_tokens(matched, score.tiers.get(name, {}), score.block_size)
            rows.append(candidate(endpoint, matched, max(saved, assumed.get(name, 0))))
        return rows


def _tied(hints: Hints, candidates: Sequence[Candidate]) -> tuple[Candidate, str] | None:
    """The candidate to which the request must go, and why; None if the policy decides."""
    stores = next((one for one in candidates if one.name == hints.home), None) if hints.home else None
    if stores is not None:
        return stores, "it stores the response that the request continues"
    return (home(hints.session, candidates), "the session belongs to it") if hints.session else None


def nobody_answers(reason: str, *, tried: bool) -> RequestRefusedError:
    """The error for a client whose request no endpoint has answered, whether or not one was `tried`."""
    status, kind = (502, "bad_gateway") if tried else (503, "service_unavailable")
    return RequestRefusedError(status, f"no engine could answer ({reason})", kind, code=str(status))
