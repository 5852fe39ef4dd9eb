"""Token blocks whose hashes are the product's own, for tests that need prefixes, gaps and shared beginnings.

A block is `block_size` token ids together with its place in a chain: its position, the hash of its parent and its own
hash. Hashes come from `kvsync_events.BlockHasher` with `DEFAULT_HASH_ALGORITHM`, so they equal what a mock engine (or
vLLM with the same settings) announces for the same tokens. Nothing here is random.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, overload

from kvsync_events import BlockHasher
from kvsync_testkit.errors import ConfigurationError

DEFAULT_HASH_ALGORITHM: Final = "sha256"
"""vLLM's default since 0.10.2; with the newest version's fixed first parent it is the same in every process."""
DEFAULT_BLOCK_SIZE: Final = 16
"""Tokens per block, vLLM's default."""

_hasher: Final = BlockHasher(DEFAULT_HASH_ALGORITHM)
_MAX_TOKEN: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class TokenBlock:
    """One full block.

    Attributes:
        tokens: The block's own token ids.
        position: Place in its chain, counted from 0.
        parent_hash: Digest of the block before it, None at position 0.
        hash: Digest of this block and everything before it, 32 bytes.
    """

    tokens: tuple[int, ...]
    position: int
    parent_hash: bytes | None
    hash: bytes

    @property
    def block_size(self) -> int:
        """Tokens in the block."""
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class TokenSequence(Sequence[TokenBlock]):
    """A chain of blocks, each the parent of the next."""

    blocks: tuple[TokenBlock, ...]

    @property
    def block_size(self) -> int:
        """Tokens per block; 0 in an empty sequence."""
        return self.blocks[0].block_size if self.blocks else 0

    @property
    def tokens(self) -> list[int]:
        """The token ids of all blocks, one block after another."""
        return [token for block in self.blocks for token in block.tokens]

    @property
    def hashes(self) -> list[bytes]:
        """The digest of each block, in chain order."""
        return [block.hash for block in self.blocks]

    def __len__(self) -> int:
        return len(self.blocks)

    def __iter__(self) -> Iterator[TokenBlock]:
        return iter(self.blocks)

    @overload
    def __getitem__(self, index: int) -> TokenBlock: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[TokenBlock, ...]: ...
    def __getitem__(self, index: int | slice) -> TokenBlock | tuple[TokenBlock, ...]:
        return self.blocks[index]


def create_token_block(tokens: Iterable[int], parent: TokenBlock | None = None) -> TokenBlock:
    """A full block of these token ids, behind `parent` or at the beginning of a chain.

    Raises:
        ConfigurationError: there are no tokens, or one is not an unsigned 32-bit integer (what the wire carries).
    """
    ids = tuple(tokens)
    if not ids:
        raise ConfigurationError("a token block needs at least one token")
    for token in ids:
        if not 0 <= token <= _MAX_TOKEN:
            raise ConfigurationError(f"token {token} is not an unsigned 32-bit integer")
    parent_hash = parent.hash if parent else None
    position = parent.position + 1 if parent else 0
    return TokenBlock(ids, position, parent_hash, _hasher.hash_block(parent_hash, ids))


def create_sequential_block(start: int = 0, block_size: int = DEFAULT_BLOCK_SIZE) -> TokenBlock:
    """The block of the tokens `start, start + 1, …, start + block_size - 1`, at the beginning of a chain."""
    return create_token_block(range(start, start + block_size))


def create_token_sequence(num_blocks: int, block_size: int = DEFAULT_BLOCK_SIZE, start: int = 0) -> TokenSequence:
    """A chain of `num_blocks` blocks over the consecutive tokens from `start` on.

    Two sequences with the same `start` and `block_size` share the beginning of the shorter one.

    Raises:
        ConfigurationError: a negative number of blocks, a block size below 1, or tokens beyond 32 bits.
    """
    if num_blocks < 0 or block_size < 1:
        raise ConfigurationError(f"{num_blocks} blocks of {block_size} tokens: there can be no such sequence")
    return split_into_blocks(range(start, start + num_blocks * block_size), block_size)


def split_into_blocks(tokens: Sequence[int], block_size: int = DEFAULT_BLOCK_SIZE) -> TokenSequence:
    """The chain of full blocks of a prompt; tokens beyond the last full block are left out, as an engine does.

    Raises:
        ConfigurationError: a block size below 1, or a token that is not an unsigned 32-bit integer.
    """
    if block_size < 1:
        raise ConfigurationError(f"block size {block_size}: a block has at least one token")
    blocks: list[TokenBlock] = []
    for end in range(block_size, len(tokens) + 1, block_size):
        blocks.append(create_token_block(tokens[end - block_size : end], blocks[-1] if blocks else None))
    return TokenSequence(tuple(blocks))


def generate_sequence_hashes(sequence: Sequence[TokenBlock], *, hasher: BlockHasher | None = None) -> list[bytes]:
    """The digest of each block of a chain, computed again from the tokens.

    Args:
        sequence: The blocks in chain order.
        hasher: Another algorithm, seed or vLLM version than the kit's default (`DEFAULT_HASH_ALGORITHM`).

    Returns:
        One digest per block: 32 bytes with SHA-256, 16 with xxHash. Events carry `kvsync_events.event_hash` of it.
    """
    hash_block = (hasher or _hasher).hash_block
    hashes: list[bytes] = []
    for block in sequence:
        hashes.append(hash_block(hashes[-1] if hashes else None, block.tokens))
    return hashes


def create_disjoint_sequences(
    segments: Sequence[tuple[int, int]], block_size: int = DEFAULT_BLOCK_SIZE
) -> list[TokenSequence]:
    """One chain per segment `(blocks, start)`, with no token in two of them: for tests of gaps and misses.

    Raises:
        ConfigurationError: two segments overlap, so their chains would not be disjoint.
    """
    ranges = sorted((start, start + blocks * block_size) for blocks, start in segments if blocks)
    for (_, end), (start, _) in pairwise(ranges):
        if start < end:
            raise ConfigurationError(f"the segment that starts at token {start} overlaps the one that ends at {end}")
    return [create_token_sequence(blocks, block_size, start) for blocks, start in segments]
