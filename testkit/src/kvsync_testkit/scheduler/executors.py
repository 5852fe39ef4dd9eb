"""Executors that take the place of the model: scripted outputs, failing steps and refused requests."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from kvsync_mockpod.engine import Executor, Request, RequestFailedError, StepFailedError

EOS_TOKEN: Final = 2
"""The end-of-sequence token of `engine_config`."""
_FIRST: Final = 1000
_COUNT: Final = 20_000


def text_number(text: str) -> int:
    """A number computed from a text, the same in every process."""
    return sum((i + 1) * ord(character) for i, character in enumerate(text))


class ScriptedExecutor(Executor):
    """Takes output tokens from a table by request; tokens beyond it depend on the request's id and the index only."""

    def __init__(
        self, table: Mapping[str, Sequence[int]] | None = None, *, eos_at: Mapping[str, int] | None = None
    ) -> None:
        self.table = table or {}
        """Output tokens by request id."""
        self.eos_at = eos_at or {}
        """Index of the end-of-sequence token by request id."""

    def sample(self, request: Request, index: int) -> int:
        """The output token at `index` (from 0)."""
        if self.eos_at.get(request.request_id) == index:
            return EOS_TOKEN
        given = self.table.get(request.request_id, ())
        if index < len(given):
            return given[index]
        return _FIRST + (text_number(request.request_id) + 31 * index) % _COUNT


class FailingExecutor(ScriptedExecutor):
    """Fails whole steps. Attempts are counted from 0; a step that is retried is another attempt."""

    def __init__(
        self,
        attempts: Iterable[int],
        table: Mapping[str, Sequence[int]] | None = None,
        *,
        eos_at: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(table, eos_at=eos_at)
        self.failing = frozenset(attempts)
        self.attempts = 0
        """Attempts so far."""

    def begin_step(self, step: int, request_ids: Sequence[str]) -> None:  # noqa: ARG002 - the attempt decides
        """Fail, if this attempt is one of `failing`."""
        attempt = self.attempts
        self.attempts += 1
        if attempt in self.failing:
            raise StepFailedError(f"attempt {attempt} failed")


class RefusingExecutor(ScriptedExecutor):
    """Refuses requests at their admission, before any of their blocks is announced."""

    def __init__(
        self,
        requests: Iterable[str],
        table: Mapping[str, Sequence[int]] | None = None,
        *,
        eos_at: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(table, eos_at=eos_at)
        self.refused = frozenset(requests)
        """Ids of the requests to refuse."""

    def admit(self, request: Request) -> None:
        """Refuse the request, if it is one of `refused`."""
        if request.request_id in self.refused:
            raise RequestFailedError(f"prefill of {request.request_id} failed")
