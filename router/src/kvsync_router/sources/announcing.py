"""Logs once when the index stops answering and once when it answers again, however many requests notice it."""

import structlog

from kvsync_indexer.api import MatchRequest
from kvsync_router.decisions.scoring import Score, Scorer
from kvsync_router.errors import ScorerUnavailableError

_log = structlog.get_logger("kvsync_router.scoring")


class AnnouncingScorer:
    """Asks another scorer.

    Prompts as texts and as token ids are told apart, because an index whose engines do not tokenize still answers the
    latter.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._lost: set[str] = set()

    async def score(self, request: MatchRequest) -> Score:
        """Who holds how much. Raises ScorerUnavailableError."""
        prompts = "texts" if request.token_ids is None else "token ids"
        try:
            score = await self._scorer.score(request)
        except ScorerUnavailableError as error:
            if prompts not in self._lost:
                self._lost.add(prompts)
                _log.warning("index_lost", prompts=prompts, problem=str(error), placing="by load")
            raise
        if prompts in self._lost:
            self._lost.remove(prompts)
            _log.info("index_found_again", prompts=prompts)
        return score
