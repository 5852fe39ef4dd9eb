"""Followers with one decision wrong, for `mutants`."""

from collections.abc import Iterable, Sequence
from typing import Any

from kvsync_events import BlockStored, decode_batch
from kvsync_indexer.core import Applied
from kvsync_indexer.sync import Action, Apply, Follower, State, Totals
from kvsync_indexer.sync.ranks import Ranks
from kvsync_indexer.sync.turnover import Turnover


class BlamesTheFirst(Follower):
    """Takes the first batch of a run for the one that the core refused."""

    def _refused(self, action: Apply, reason: str, place: int | None) -> tuple[int, str]:
        return super()._refused(action, reason, None if place is None else 0)


class IgnoresRefusals(Follower):
    """Goes on behind a batch that the core refused."""

    def _apply_slice(self, action: Apply) -> tuple[int, str] | None:
        super()._apply_slice(action)
        return None


class KeepsHalfARun(Follower):
    """Keeps the blocks although nobody knows how much of a run was applied."""

    def _refused(self, action: Apply, reason: str, place: int | None) -> tuple[int, str]:
        return super()._refused(action, reason, place or 0)


class CountsRefusedRuns(Follower):
    """Counts a run of which the core refused a part as applied."""

    def _refused(self, action: Apply, reason: str, place: int | None) -> tuple[int, str]:
        refused = super()._refused(action, reason, place)
        self.totals.batches += len(action.payloads)
        return refused


class TrustsSoon(Follower):
    """Trusts a publisher as soon as it is connected."""

    def __init__(self, *parts: Any, **options: Any) -> None:  # noqa: ANN401  whatever a follower takes
        matched = frozenset({State.LIVE, State.GAP, State.RESYNCING, State.REPLAYING})
        super().__init__(*parts, matched=matched, **options)


class WithdrawsTrustLate(Follower):
    """Withdraws trust after the blocks have changed."""

    _holding = False

    def _perform(self, actions: Sequence[Action], now: float) -> None:
        self._holding = True
        super()._perform(actions, now)
        self._holding = False
        if self.trusted and not self.machine.trusted:
            self._set_trust(trusted=False)

    def _set_trust(self, *, trusted: bool) -> None:
        if trusted or not self._holding:
            super()._set_trust(trusted=trusted)


class NeverWithdrawsTrust(Follower):
    """Announces trust and never takes it back."""

    def _set_trust(self, *, trusted: bool) -> None:
        if trusted:
            super()._set_trust(trusted=True)


class CutsNoRuns(Follower):
    """Takes everything that one read brings for consecutive batches."""

    def receive(self, link: int, messages: Iterable[tuple[int, bytes]], now: float) -> None:
        """Hand all payloads on as one run."""
        numbers, payloads = zip(*messages, strict=True)
        self._take(link, numbers[0], list(payloads), now)


class BelievesAnyLink(Follower):
    """Takes the batches of a link that was given up for those of the present one."""

    def receive(self, link: int, messages: Iterable[tuple[int, bytes]], now: float) -> None:
        """Receive under the present number."""
        del link
        super().receive(self.machine.link, messages, now)


class _AnyTurnover(Turnover):
    def replaced(self, resident: int) -> bool:
        super().replaced(resident)
        return True


class CompletesTooSoon(Follower):
    """Takes a publisher for complete after the first eviction."""

    def __init__(self, *parts: Any, **options: Any) -> None:  # noqa: ANN401  whatever a follower takes
        super().__init__(*parts, **options)
        self.turnover = _AnyTurnover()


class RemembersTurnover(Follower):
    """Counts evictions from before a clear towards the turnover of what came after it."""

    def _clear(self) -> None:
        self._core.clear_publisher(self.name)


class _IgnoresOrphans(Turnover):
    def watch(self, applied: Applied, payloads: Iterable[bytes], orphans: int) -> None:
        del orphans
        super().watch(applied, payloads, 0)


class IgnoresOrphans(Follower):
    """Takes a cache for turned over although blocks wait for parents that the engine must still hold."""

    def __init__(self, *parts: Any, **options: Any) -> None:  # noqa: ANN401  whatever a follower takes
        super().__init__(*parts, **options)
        self.turnover = _IgnoresOrphans()


class _CountsUnknownEvictions(Turnover):
    def watch(self, applied: Applied, payloads: Iterable[bytes], orphans: int) -> None:
        known = applied.removed + applied.unknown_removed
        super().watch(applied._replace(removed=known, unknown_removed=0), payloads, orphans)


class CountsUnknownEvictions(Follower):
    """Counts the evictions that show unknown blocks towards the turnover."""

    def __init__(self, *parts: Any, **options: Any) -> None:  # noqa: ANN401  whatever a follower takes
        super().__init__(*parts, **options)
        self.turnover = _CountsUnknownEvictions()


class _NeverDoubts(Turnover):
    def contradicts(self, applied: Applied, orphans: int) -> bool:
        del applied, orphans
        return False


class KeepsAnAssumption(Follower):
    """Calls a publisher complete although it has shown since that it is not."""

    def __init__(self, *parts: Any, **options: Any) -> None:  # noqa: ANN401  whatever a follower takes
        super().__init__(*parts, **options)
        self.turnover = _NeverDoubts()


class IgnoresUnknownEvents(Follower):
    """Keeps blocks that an event of an unknown type may have removed."""

    def _apply_slice(self, action: Apply) -> tuple[int, str] | None:
        refused = super()._apply_slice(action)
        self._unknown_events = 0
        return refused


class _AnyRank(Ranks):
    def first_other(self, payloads: Iterable[bytes]) -> tuple[int, int] | None:
        del payloads
        return None


class MergesRanks(Follower):
    """Applies the batches of all ranks to one cache."""

    def __init__(self, *parts: Any, **options: Any) -> None:  # noqa: ANN401  whatever a follower takes
        super().__init__(*parts, **options)
        self._ranks = _AnyRank()


class ForgetsDeaths(Follower):
    """Marks nothing, so that a payload which ends the process ends every later one as well."""

    def __init__(self, *parts: Any, **options: Any) -> None:  # noqa: ANN401  whatever a follower takes
        super().__init__(*parts, **{**options, "guard": None})


class _FirstSize(Totals):
    def add(self, applied: Applied, payloads: tuple[bytes, ...]) -> None:
        super().add(applied, payloads)
        stored = [event for event in decode_batch(payloads[-1]).events if isinstance(event, BlockStored)]
        if stored:
            self.block_size = stored[0].block_size


class BelievesAnyBlockSize(Follower):
    """Takes the block size from any stored event, those of offloaded blocks without tokens included."""

    def __init__(self, *parts: Any, **options: Any) -> None:  # noqa: ANN401  whatever a follower takes
        super().__init__(*parts, **options)
        self.totals = _FirstSize()
