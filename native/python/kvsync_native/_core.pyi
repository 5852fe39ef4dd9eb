"""Types of the compiled part. `kvsync_indexer.core.IndexCore` says what the methods of the same names promise."""

from array import array
from collections.abc import Collection, Iterator, Sequence
from typing import Self

from kvsync_events import BlockRun, Hash
from kvsync_indexer.core.protocol import Applied, BlockRow, Context, CoreStats, DigestRow, Match, Tokens

class NativeIndex:
    """A core that takes plain values.

    `results` are the classes Applied, BlockRow, DigestRow, CoreStats and Match; `errors` are DecodeError,
    UnknownPublisherError, PublisherConflictError, LimitError, QueryError and SnapshotError. The limits are those of
    `CoreLimits` and of its `wire`.
    """

    def __new__(
        cls,
        *,
        results: tuple[type, ...],
        errors: tuple[type[Exception], ...],
        seed: int,
        max_publishers: int,
        max_blocks: int,
        max_orphans: int,
        max_remembered: int,
        max_query_tokens: int,
        max_payload_bytes: int,
        max_events: int,
        max_hashes: int,
        max_tokens: int,
        max_hash_bytes: int,
        max_text_bytes: int,
        max_block_size: int,
        max_key_parts: int,
    ) -> Self: ...
    @property
    def name(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def max_query_tokens(self) -> int: ...
    def add_publisher(self, publisher: str, model: str) -> None: ...
    def set_last_copy_only(self, publisher: str, on: bool) -> None: ...
    def apply(self, publisher: str, payload: bytes) -> Applied: ...
    def apply_many(self, publisher: str, payloads: Sequence[bytes], budget: int | None = None) -> Applied: ...
    def block_sizes(self, model: str) -> list[int]:
        """The block sizes that publishers of the model use, ascending."""

    def match(
        self,
        context: Context,
        tokens: Tokens,
        publishers: Collection[str] | None = None,
    ) -> Sequence[Match]:
        """Reads bytes and arrays of u32 itself; the rest goes to `match_converted` of the subclass."""

    def match_prompt(
        self,
        model: str,
        lora: str | None,
        salt: str | None,
        tokens: bytes | array[int],
        publishers: Collection[str] | None = None,
    ) -> Matches:
        """`match` for a prompt whose blocks have no extra keys; tokens are little-endian u32, or an array of u32."""

    def prompt_keys(
        self, model: str, lora: str | None, salt: str | None, tokens: bytes | array[int], block_size: int
    ) -> bytes:
        """`query_keys` for such a prompt."""

    def match_keys(
        self, model: str, block_size: int, keys: bytes, publishers: Collection[str] | None = None
    ) -> Matches: ...
    def match_chains(
        self, model: str, chains: Sequence[tuple[int, bytes]], publishers: Collection[str] | None = None
    ) -> Matches:
        """`match` for a prompt whose keys are given by block size."""

    def apply_runs(self, publisher: str, block_size: int, runs: Sequence[BlockRun]) -> Applied: ...
    def match_hashes(
        self, model: str, block_size: int, hashes: Sequence[Hash], publishers: Collection[str] | None = None
    ) -> Matches: ...
    def remove_publisher(self, publisher: str) -> int: ...
    def clear_publisher(self, publisher: str) -> int: ...
    def publishers(self) -> list[str]: ...
    def digest(self, publisher: str) -> list[DigestRow]: ...
    def dump(self, publisher: str) -> Iterator[BlockRow]: ...
    def snapshot(self) -> bytes: ...
    def snapshot_part(self, publisher: str) -> bytes: ...
    def restore(self, data: bytes) -> list[str]: ...
    def sizes(self, publisher: str) -> tuple[int, int]: ...
    def stats(self, publisher: str | None = None) -> CoreStats: ...

class Matches(Sequence[Match]): ...

class AnswerTable:
    """JSON answers for one set of publishers; a row is (name, JSON up to its first number, ready)."""

    def __new__(cls, rows: Sequence[tuple[str, bytes, bool]]) -> Self: ...
    def answer(
        self,
        matches: Matches,
        query_tokens: int,
        now: float,
        statuses: Sequence[tuple[str, float | None, bool, int | None]],
        limit: int | None = None,
    ) -> bytes:
        """The whole answer; a status is (state, time of the last sign of life, incomplete, block size) per row."""

def split_token_ids(body: bytes) -> tuple[bytes, bytes] | None: ...
def reference_loop(payloads: list[bytes]) -> int: ...
