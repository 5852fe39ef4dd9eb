"""From a request to an endpoint: ask the index if the policy wants it, fall back to load if it is away."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from kvsync_indexer.router.config import RouterConfig
from kvsync_indexer.router.endpoints import Endpoint, EndpointTable, candidate
from kvsync_indexer.router.errors import ScorerUnavailableError
from kvsync_indexer.router.policies import FALLBACK_POLICY, Policy, make_policy
from kvsync_indexer.router.scoring import Query, Scorer
from kvsync_indexer.router.wire import InferenceRequest


@dataclass(frozen=True, slots=True)
class Plan:
    """How one request is to be placed, whatever endpoint is tried first."""

    policy: Policy
    prompt_tokens: int
    matched_tokens: Mapping[str, int] = field(default_factory=dict)
    """By endpoint, of all that the index trusts; an endpoint it says nothing of is absent."""
    fallback: str | None = None
    """Why another policy than the configured one decides."""


class Picker:
    """Places requests on the endpoints of a table."""

    def __init__(self, config: RouterConfig, table: EndpointTable, scorer: Scorer) -> None:
        self._table = table
        self._scorer = scorer
        self._policy = make_policy(config.policy, config.seed, config.prefill_weight, config.decode_weight)
        self._fallback = make_policy(FALLBACK_POLICY, config.seed)

    async def plan(self, request: InferenceRequest) -> Plan:
        """Ask whoever must be asked; never fails for want of an index."""
        prompt_tokens = request.estimated_tokens
        if not self._policy.needs_match or request.model is None:
            return Plan(self._policy, prompt_tokens)
        model, lora = self._table.base_model(request.model)
        query = Query(
            model=model,
            lora=lora,
            cache_salt=request.cache_salt,
            token_ids=request.token_ids,
            prompt=request.prompt,
            messages=request.messages,
        )
        try:
            score = await self._scorer.score(query)
        except ScorerUnavailableError as error:
            return Plan(self._fallback, prompt_tokens, fallback=str(error))
        return Plan(self._policy, prompt_tokens, score.matched_tokens)

    def pick(self, plan: Plan, model: str | None, tried: Collection[str]) -> tuple[Endpoint, int] | None:
        """The next endpoint to try and its matched tokens; one that failed is tried again only as the last resort."""
        rotation = self._table.rotation(model, tried) or self._table.rotation(model)
        if not rotation:
            return None
        candidates = [candidate(endpoint, plan.matched_tokens.get(endpoint.info.name, 0)) for endpoint in rotation]
        chosen = plan.policy.choose(plan.prompt_tokens, candidates)
        endpoint = next(endpoint for endpoint in rotation if endpoint.info.name == chosen.name)
        return endpoint, chosen.matched_tokens
