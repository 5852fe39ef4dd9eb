"""Which removals are announced for a block that has several copies."""

from collections import Counter

import pytest

from kvsync_events import BlockRemoved
from kvsync_testkit.scheduler import SchedulerBuilder, make_request


@pytest.mark.parametrize(("removals", "announced"), [("each_copy", 2), ("last_copy", 1)])
def test_the_copies_of_a_recomputed_block(removals, announced):
    driver = SchedulerBuilder(
        block_size=16, num_gpu_blocks=9, max_model_len=128, max_num_batched_tokens=512, removals=removals
    ).build()
    for name in ("one", "two"):  # the second call computes the last block of the prompt again
        driver.add(make_request(name, n=32, max_tokens=1, stream=3))
        driver.until_idle()
    copies = {block.hash: block.copies for block in driver.engine.blocks()}
    (twice,) = [block_hash for block_hash, count in copies.items() if count == 2]
    driver.add(make_request("other", n=120, max_tokens=1, stream=4))
    driver.until_idle()
    removed = Counter(
        block_hash for event in driver.events if isinstance(event, BlockRemoved) for block_hash in event.block_hashes
    )
    assert removed == {block_hash: announced if block_hash == twice else 1 for block_hash in copies}
