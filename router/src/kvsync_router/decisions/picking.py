"""From a request to an endpoint: ask the index if the policy needs it, and fall back to load if it does not answer."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from kvsync_router.config import RouterConfig
from kvsync_router.decisions.endpoints import Endpoint, EndpointTable, candidate
from kvsync_router.decisions.policies import FALLBACK_POLICY, Policy, make_policy
from kvsync_router.decisions.requests import InferenceRequest, match_request
from kvsync_router.decisions.scoring import Scorer
from kvsync_router.errors import ScorerUnavailableError


@dataclass(frozen=True, slots=True)
class RoutingDecision:
    """How one request is to be placed, whichever endpoint is tried first."""

    policy: Policy
    prompt_tokens: int
    matched_tokens: Mapping[str, int] = field(default_factory=dict)
    """Matched tokens per trusted endpoint; an endpoint that the index does not list is absent."""
    fallback: str | None = None
    """Why another policy than the configured one decides."""
    unknown: str | None = None
    """Why nobody can tell how much of this prompt is cached anywhere."""
    skips_cache: bool = False
    """The engine computes the whole prompt, so nothing is hit wherever it goes."""

    def predicted_tokens(self, endpoint: str) -> int | None:
        """Prompt tokens that the endpoint is predicted to find cached; None if there is no prediction."""
        return 0 if self.skips_cache else self.matched_tokens.get(endpoint)


class Picker:
    """Places requests on the endpoints of a table."""

    def __init__(self, config: RouterConfig, table: EndpointTable, scorer: Scorer) -> None:
        self._table = table
        self._scorer = scorer
        self._policy = make_policy(config.policy, config.seed, config.prefill_weight, config.decode_weight)
        self._fallback = make_policy(FALLBACK_POLICY, config.seed)

    async def decide(self, request: InferenceRequest) -> RoutingDecision:
        """Decide how the request is to be placed. This works with and without an index that answers."""
        prompt_tokens = request.estimated_tokens
        if not self._policy.needs_match or request.model is None:
            return RoutingDecision(self._policy, prompt_tokens)
        if request.skips_cache:
            return RoutingDecision(self._policy, prompt_tokens, skips_cache=True)
        question = match_request(request, *self._table.base_model(request.model))
        if question is None:
            return RoutingDecision(self._policy, prompt_tokens, unknown=request.unknown)
        try:
            score = await self._scorer.score(question)
        except ScorerUnavailableError as error:
            return RoutingDecision(self._fallback, prompt_tokens, fallback=str(error))
        return RoutingDecision(self._policy, prompt_tokens, score.matched_tokens, unknown=score.unknown)

    def pick(
        self,
        decision: RoutingDecision,
        model: str | None,
        tried: Collection[str] = (),
        subset: frozenset[str] | None = None,
    ) -> tuple[Endpoint, int] | None:
        """The next endpoint to try, and its matched tokens. One that failed is tried again only if no other is left.

        None if no endpoint of `subset` in the rotation serves the model.
        """
        rotation = self._table.rotation(model, tried, subset) or self._table.rotation(model, subset=subset)
        if not rotation:
            return None
        candidates = [candidate(endpoint, decision.matched_tokens.get(endpoint.info.name, 0)) for endpoint in rotation]
        chosen = decision.policy.choose(decision.prompt_tokens, candidates)
        endpoint = next(endpoint for endpoint in rotation if endpoint.info.name == chosen.name)
        return endpoint, chosen.matched_tokens
