"""The index as a library, with the calls of AIBrix's sync prefix hash table.

It is for programs that receive events and know their pods themselves, and need neither sockets nor a service. The calls
mean the following where AIBrix leaves it open or differs:

- the removal of a block from a pod affects that pod only;
- a match is contiguous from the first block, and 100 percent stands for all full blocks of the prompt;
- the adapter is part of the question, as `lora_id` (None or -1 for the base model) or by its name;
- tokens are 32-bit integers, or AIBrix's form, four big-endian bytes per token; a stored event has those of all blocks
  in one sequence, or one sequence per block.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, TypeGuard

from kvsync_events import AllBlocksCleared, BlockRemoved, BlockStored, EventBatch, Hash
from kvsync_indexer.core import Applied, Context, CoreLimits, IndexCore, QueryError, make_core

TokenInput: TypeAlias = Sequence[int] | bytes | bytearray | memoryview
"""Token ids as integers of 32 bits, signed or unsigned, or as four big-endian bytes per token."""

StoredTokens: TypeAlias = TokenInput | Sequence[TokenInput]
"""The tokens of a stored event: those of all blocks in one `TokenInput`, or one `TokenInput` per block."""

_NO_LORA: Final = -1
_MASK: Final = 0xFFFFFFFF


class PrefixMatch(NamedTuple):
    """The answer of `match_prefix`."""

    percent: dict[str, int]
    """Share of the prompt's full blocks, 1 to 100, for each ready pod that holds at least the first block."""
    hashes: list[int]
    """The prefix hashes of the prompt, as `get_prefix_hashes` returns them for this model and adapter."""


class PrefixIndex:
    """Which pods hold which prefixes. It is thread-safe and has one block size for all pods."""

    def __init__(self, block_size: int = 16, core: IndexCore | None = None, limits: CoreLimits | None = None) -> None:
        """`core` may be shared with other users; by default a new one is made, native if that is installed."""
        if block_size <= 0:
            raise ValueError(f"block_size must be positive, not {block_size}")
        self.block_size = block_size
        self.core = core if core is not None else make_core("auto", limits)

    def process_block_stored(
        self,
        pod: str,
        model: str,
        block_hashes: Sequence[Hash],
        tokens: StoredTokens,
        parent_block_hash: Hash | None = None,
        lora_id: int | str | None = None,
    ) -> Applied:
        """Record that a pod has stored blocks, each the parent of the next.

        `tokens` are those of all blocks, or one list of integers or bytes object per block. Raises QueryError if they
        are no token ids or do not fill the blocks, LimitError, and PublisherConflictError if the pod serves another
        model.
        """
        ids = self._stored(tokens, len(block_hashes))
        self.core.add_publisher(pod, model)
        event = BlockStored(list(block_hashes), parent_block_hash, ids, self.block_size)
        event.lora_name = _lora(lora_id)
        return self.core.apply_batch(pod, EventBatch(0.0, [event]))

    def _stored(self, tokens: StoredTokens, blocks: int) -> list[int]:
        """The token ids of all `blocks`, in order."""
        if not _is_nested(tokens):
            return _tokens(tokens)
        parts = [_tokens(part) for part in tokens]
        if len(parts) != blocks:
            raise QueryError(f"{len(parts)} token lists for {blocks} block hashes; each block needs one")
        for number, part in enumerate(parts):
            if len(part) != self.block_size:
                raise QueryError(f"block {number} has {len(part)} tokens; the block size is {self.block_size}")
        return [token for part in parts for token in part]

    def process_block_removed(self, pod: str, block_hashes: Sequence[Hash]) -> Applied:
        """Record that a pod has dropped one copy of each block. Raises UnknownPublisherError."""
        return self.core.apply_batch(pod, EventBatch(0.0, [BlockRemoved(list(block_hashes))]))

    def process_all_blocks_cleared(self, pod: str) -> Applied:
        """Record that a pod has dropped all of its blocks. Raises UnknownPublisherError."""
        return self.core.apply_batch(pod, EventBatch(0.0, [AllBlocksCleared()]))

    def remove_pod(self, pod: str) -> int:
        """Remove a pod, and return the number of its blocks."""
        return self.core.remove_publisher(pod)

    def match_prefix(
        self, model: str, lora_id: int | str | None, tokens: TokenInput, ready_pods: Collection[str]
    ) -> PrefixMatch:
        """How much of the prompt each ready pod holds, in percent, rounded down but never to 0."""
        ids = _tokens(tokens)
        context = Context(model, _lora(lora_id))
        keys = self.core.query_keys(context, ids, self.block_size)
        hashes = _numbers(keys)
        if not hashes:
            return PrefixMatch({}, [])
        found = self.core.match_keys(model, self.block_size, keys, ready_pods)
        return PrefixMatch({one.publisher: max(1, one.blocks * 100 // len(hashes)) for one in found}, hashes)

    def get_prefix_hashes(self, tokens: TokenInput, model: str = "", lora_id: int | str | None = None) -> list[int]:
        """One 64-bit hash per full block, which covers all tokens up to its end. Engines use other hashes."""
        return _numbers(self.core.query_keys(Context(model, _lora(lora_id)), _tokens(tokens), self.block_size))


def _lora(lora_id: int | str | None) -> str | None:
    if lora_id is None or lora_id == _NO_LORA:
        return None
    return str(lora_id)


def _numbers(keys: bytes) -> list[int]:
    return [int.from_bytes(keys[at : at + 8], "little") for at in range(0, len(keys), 8)]


def _is_nested(tokens: StoredTokens) -> TypeGuard[Sequence[TokenInput]]:
    """Whether there is one sequence per block. Mixed sequences count as nested, and their integers are refused."""
    if isinstance(tokens, (bytes, bytearray, memoryview)):
        return False
    return any(not isinstance(item, int) for item in tokens)


def _tokens(tokens: object) -> list[int]:
    if isinstance(tokens, (bytes, bytearray)):
        return _from_bytes(bytes(tokens))
    if isinstance(tokens, memoryview):
        return _from_bytes(tokens.tobytes()) if tokens.itemsize == 1 else _from_integers(tokens.tolist())
    if isinstance(tokens, str) or not isinstance(tokens, Iterable):
        raise QueryError(f"tokens must be integers or bytes, not {type(tokens).__name__}")
    return _from_integers(tokens)


def _from_bytes(data: bytes) -> list[int]:
    if len(data) % 4:
        raise QueryError(f"tokens as bytes must be four bytes each, not {len(data)} in all")
    return [int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data), 4)]


def _from_integers(items: Iterable[Any]) -> list[int]:
    ids = []
    for item in items:
        if not isinstance(item, int) or not -(1 << 31) <= item <= _MASK:
            raise QueryError(f"a token id must be a 32-bit integer, not {item!r:.40}")
        ids.append(item & _MASK)
    return ids
