"""The log of an engine's steps, with the assertions that scheduler tests make on it."""

from collections import Counter
from collections.abc import Iterable

from kvsync_mockpod.engine import StepResult


class StepLog(list[StepResult]):
    """Results of consecutive steps, oldest first."""

    def of(self, request_id: str) -> list[int]:
        """Numbers of the steps in which a request was scheduled."""
        return [step.step for step in self if any(scheduled == request_id for scheduled, _ in step.scheduled)]

    def batches(self) -> list[list[str]]:
        """Request ids of each step, in batch order."""
        return [[request_id for request_id, _ in step.scheduled] for step in self]

    def tokens(self) -> list[int]:
        """Scheduled tokens of each step."""
        return [sum(count for _, count in step.scheduled) for step in self]

    def ends(self) -> list[str]:
        """Ids of the requests that ended, in order."""
        return [request_id for step in self for request_id, _ in step.finished]

    def assert_limits(self, *, max_num_seqs: int, max_num_batched_tokens: int, reached: bool = False) -> None:
        """No step is above a limit; with `reached`, each limit is reached by some step, as a backlog must do.

        Raises:
            AssertionError: names the first step that is above a limit, or the limit that was never reached.
        """
        for step, batch, tokens in zip(self, self.batches(), self.tokens(), strict=True):
            assert len(batch) <= max_num_seqs, (
                f"step {step.step} runs {len(batch)} requests, {max_num_seqs} are allowed"
            )
            assert tokens <= max_num_batched_tokens, (
                f"step {step.step} computes {tokens} tokens, {max_num_batched_tokens} are allowed"
            )
        if reached:
            assert max(map(len, self.batches()), default=0) == max_num_seqs, "no step runs as many requests as allowed"
            assert max(self.tokens(), default=0) == max_num_batched_tokens, "no step computes as many tokens as allowed"

    def assert_one_end_each(self, request_ids: Iterable[str]) -> None:
        """Each of these requests ended exactly once, and no other did.

        Raises:
            AssertionError: names the requests that ended never, repeatedly or unexpectedly.
        """
        ends, wanted = Counter(self.ends()), Counter(dict.fromkeys(request_ids, 1))
        wrong = sorted(name for name in ends | wanted if ends[name] != wanted[name])
        assert not wrong, "ends per request: " + ", ".join(f"{name}: {ends[name]}" for name in wrong[:10])
