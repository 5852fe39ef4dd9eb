"""Token blocks: hashes are the engine's own, chains share beginnings, disjoint chains share nothing."""

import pytest

from kvsync_events import BlockHasher
from kvsync_testkit.errors import ConfigurationError
from kvsync_testkit.token_blocks import (
    DEFAULT_HASH_ALGORITHM,
    create_disjoint_sequences,
    create_sequential_block,
    create_token_block,
    create_token_sequence,
    generate_sequence_hashes,
    split_into_blocks,
)


def test_hashes_are_those_of_an_engine_with_the_default_algorithm():
    hash_block = BlockHasher(DEFAULT_HASH_ALGORITHM).hash_block
    first = hash_block(None, [0, 1, 2, 3])
    second = hash_block(first, [4, 5, 6, 7])
    sequence = create_token_sequence(2, 4, 0)
    assert sequence.hashes == generate_sequence_hashes(sequence) == [first, second]


def test_another_algorithm_gives_the_golden_vector():
    # Seen in vLLM 0.33 itself: sha256_cbor of the tokens 0 to 15 without extra keys.
    digest = generate_sequence_hashes(create_token_sequence(1, 16), hasher=BlockHasher("sha256_cbor"))[0].hex()
    assert digest.startswith("dc918a88")
    assert digest.endswith("0749")


def test_a_block_knows_its_place():
    parent = create_sequential_block(0, 4)
    child = create_token_block([9, 9, 9, 9], parent)
    assert (parent.position, parent.parent_hash, parent.tokens) == (0, None, (0, 1, 2, 3))
    assert (child.position, child.parent_hash) == (1, parent.hash)
    assert create_token_block([9, 9, 9, 9]).hash != child.hash  # the prefix is part of the identity


def test_sequences_share_exactly_their_common_beginning():
    short, long = create_token_sequence(2, 4, 100), create_token_sequence(5, 4, 100)
    assert long.hashes[:2] == short.hashes
    assert len(set(long.hashes)) == 5
    assert long.tokens == list(range(100, 120))
    assert create_token_sequence(2, 4, 101).hashes[0] != short.hashes[0]


def test_disjoint_sequences_share_nothing_and_overlaps_are_refused():
    a, b, c = create_disjoint_sequences([(3, 0), (2, 100), (1, 48)], block_size=16)
    assert [len(s) for s in (a, b, c)] == [3, 2, 1]
    assert len({*a.hashes, *b.hashes, *c.hashes}) == 6
    assert b.blocks[0].parent_hash is None
    with pytest.raises(ConfigurationError, match="starts at token 47 overlaps the one that ends at 48"):
        create_disjoint_sequences([(1, 47), (3, 0)], block_size=16)


@pytest.mark.parametrize("tokens", [[], [-1], [2**32]])
def test_tokens_that_the_wire_cannot_carry_are_refused(tokens):
    with pytest.raises(ConfigurationError):
        create_token_block(tokens)


def test_impossible_sequences_are_refused():
    with pytest.raises(ConfigurationError):
        create_token_sequence(-1, 16)
    with pytest.raises(ConfigurationError):
        create_token_sequence(1, 0)


def test_a_prompt_is_split_into_its_full_blocks():
    assert split_into_blocks(list(range(100, 111)), 4).hashes == create_token_sequence(2, 4, 100).hashes
    assert len(split_into_blocks([1, 2, 3], 4)) == 0
    with pytest.raises(ConfigurationError):
        split_into_blocks([1], 0)
