"""Index cores with one thing wrong, for `mutants`."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any
from zlib import crc32

from kvsync_events import AllBlocksCleared, BlockRemoved, DecodeError, decode_batch
from kvsync_indexer.core import Applied, BlockRow, Context, IndexCore, Match
from kvsync_testkit.faults.subject import CoreFactory, build_core


class Wrapped:
    """A core that hands everything on; runs go through `apply`, so that a subclass changes both at once."""

    def __init__(self) -> None:
        self.core = build_core()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever the core has
        return getattr(self.core, name)

    def apply(self, publisher: str, payload: bytes) -> Applied:
        """Apply one batch."""
        return self.core.apply(publisher, payload)

    def apply_many(self, publisher: str, payloads: Sequence[bytes], budget: int | None = None) -> Applied:
        """Apply a run; an error names the batch as the real core does."""
        del budget
        total = Applied()
        for place, payload in enumerate(payloads, 1):
            try:
                done = self.apply(publisher, payload)
            except DecodeError as error:
                raise DecodeError(f"batch {place} of {len(payloads)}: {error}") from error
            total = Applied(*(one + other for one, other in zip(total, done, strict=True)))
        return total._replace(payloads=len(payloads))


class IgnoresClears(Wrapped):
    """AllBlocksCleared does nothing."""

    def apply(self, publisher: str, payload: bytes) -> Applied:
        """Apply all but the clears."""
        batch = decode_batch(payload)
        batch.events = [event for event in batch.events if not isinstance(event, AllBlocksCleared)]
        return self.core.apply_batch(publisher, batch)


class KeepsDeadBlocks(Wrapped):
    """What the machine wants forgotten (dead processes, gaps out of reach) stays."""

    def clear_publisher(self, publisher: str) -> int:
        """Do nothing."""
        del publisher
        return 0


class ForgetsCopies(Wrapped):
    """A set of blocks: the first removal takes all copies."""

    def apply(self, publisher: str, payload: bytes) -> Applied:
        """Remove every copy of what is removed."""
        batch = decode_batch(payload)
        for event in [event for event in batch.events if isinstance(event, BlockRemoved)]:
            batch.events += [BlockRemoved(event.block_hashes, event.medium)] * 8
        return self.core.apply_batch(publisher, batch)


class SharesOneMap(Wrapped):
    """All publishers are in one table."""

    def apply(self, publisher: str, payload: bytes) -> Applied:
        """Apply the batch to everyone."""
        done = self.core.apply(publisher, payload)
        for other in self.core.publishers():
            if other != publisher:
                self.core.apply(other, payload)
        return done

    def dump(self, publisher: str) -> Iterator[BlockRow]:
        """Dump the shared table."""
        return self.core.dump(publisher)


class MatchesTooMuch(Wrapped):
    """Matches one block more than is there, as a prefix walk without its last check does."""

    def match(self, context: Context, tokens: Any, publishers: Collection[str] | None = None) -> Sequence[Match]:  # noqa: ANN401
        """Match one block too many."""
        found = self.core.match(context, tokens, publishers)
        return [one._replace(blocks=one.blocks + 1, tokens=one.tokens + one.block_size) for one in found]


class ClearsEverybody(Wrapped):
    """Dropping one publisher's blocks drops those of all."""

    def clear_publisher(self, publisher: str) -> int:
        """Clear every publisher."""
        return sum(self.core.clear_publisher(name) for name in [publisher, *self.core.publishers()])


class Crashes(Wrapped):
    """Fails within some runs for a reason of its own, after a part of them was applied; a follower must survive it."""

    def apply_many(self, publisher: str, payloads: Sequence[bytes], budget: int | None = None) -> Applied:
        """Apply the run, or its first half and then fail, as its bytes decide."""
        if crc32(payloads[-1]) % 8:
            return super().apply_many(publisher, payloads, budget)
        super().apply_many(publisher, payloads[: len(payloads) // 2])
        raise RuntimeError("a defect of the core")


def core_factory(kind: Callable[[], Any]) -> CoreFactory:
    """Make cores of a wrong kind; they have all that a core has, though not by inheritance."""

    def build() -> IndexCore:
        core: IndexCore = kind()
        return core

    return build
