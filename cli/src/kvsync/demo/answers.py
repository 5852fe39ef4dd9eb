"""Compares what the index answered with what the engines then found, request by request.

An answer is wrong if the index named more tokens than the engine had in its cache, as an index does that still believes
in the blocks of a process that is gone. A busy engine may also have evicted blocks between the answer and the request.
An answer that names fewer tokens is incomplete: it costs work and misplaces no request.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from kvsync.load.client import Outcome
from kvsync_indexer.api import PredictionReport
from kvsync_indexer.prediction import Predictions


@dataclass(frozen=True, slots=True)
class AnswerTotals:
    """Answers of the index that were put to the test by a request."""

    answers: int = 0
    wrong: int = 0
    wrong_tokens: int = 0
    """Tokens that were named and not found."""
    incomplete: int = 0

    def as_json(self) -> dict[str, int]:
        """Return the totals for a report."""
        return asdict(self)


def count_answers(outcomes: Iterable[Outcome], policy: str, block_size: int) -> AnswerTotals:
    """Count the answers behind the requests that `policy` placed."""
    answers = wrong = wrong_tokens = incomplete = 0
    for outcome in outcomes:
        if not outcome.ok or outcome.policy != policy or outcome.matched_tokens is None:
            continue
        report = PredictionReport(
            outcome.endpoint, outcome.matched_tokens, outcome.cached_tokens, outcome.prompt_tokens
        )
        compared = Predictions().record(report, block_size)
        answers += 1
        wrong += compared.over > 0
        wrong_tokens += compared.over
        incomplete += compared.under > 0
    return AnswerTotals(answers, wrong, wrong_tokens, incomplete)


def count_answers_after_kill(
    outcomes: Iterable[Outcome], policy: str, block_size: int, publisher: str, killed_s: float
) -> AnswerTotals:
    """Count the answers about the killed engine behind the requests that ended after the kill."""
    chosen = (outcome for outcome in outcomes if outcome.endpoint == publisher and outcome.ended_s >= killed_s)
    return count_answers(chosen, policy, block_size)
