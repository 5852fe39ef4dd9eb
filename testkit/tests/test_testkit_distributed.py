"""Two leaders over real sockets: search across tiers and instances, sessions, whole and layer-wise transfers."""

import asyncio
import threading

import pytest

from kvsync_testkit.distributed import (
    G2Block,
    LeaderPairBuilder,
    SessionPhase,
    TestSession,
    create_instance_leader_pair,
    create_instance_leader_pair_with_workers,
    populate_leader_with_blocks,
)
from kvsync_testkit.distributed import holding as holding_module
from kvsync_testkit.errors import (
    CapacityError,
    ConfigurationError,
    GuardError,
    SessionClosedError,
    SessionError,
    StorageUnavailableError,
    TransferError,
    TransportError,
)
from kvsync_testkit.managers import Tier, populate_manager_with_blocks
from kvsync_testkit.physical import (
    LayoutConfig,
    LayoutKind,
    StorageKind,
    TransferChecksums,
    create_guard_blocks,
    storage_unavailable,
    verify_guard_blocks_unchanged,
)
from kvsync_testkit.token_blocks import create_disjoint_sequences, create_token_sequence

SMALL = LayoutConfig(blocks=1, layers=3, page_size=16, inner_dim=8)


@pytest.fixture
async def pair():
    async with await create_instance_leader_pair_with_workers(16, 16, 2, SMALL) as made:
        yield made


async def establish(pair, blocks=4):
    hashes = populate_leader_with_blocks(pair.prefill, blocks)
    return await TestSession.establish(pair.prefill, pair.decode, hashes)


def checksums_of(leader, blocks):
    return [TransferChecksums.capture(worker.g2, [b.block_id for b in blocks]) for worker in leader.workers]


def differing_layers(pair, expected, dst):
    """Layers that do not hold the expected bytes yet, on any worker of the decode side."""
    return {
        one.layer
        for worker, checksums in zip(pair.decode.workers, expected, strict=True)
        for one in checksums.mismatches(worker.g2, dst)
    }


# --- search


async def test_a_plain_pair_finds_a_prefix_that_only_both_have_together():
    async with await create_instance_leader_pair(32, 16) as (prefill, decode):
        sequence = create_token_sequence(8, 16)
        populate_leader_with_blocks(prefill, sequence[:4])
        populate_leader_with_blocks(decode, sequence[4:6], tier="G3")
        populate_leader_with_blocks(decode, sequence[2:3])
        for asker, at_2 in ((prefill, ("prefill", Tier.G2)), (decode, ("decode", Tier.G2))):
            found = await asker.find_matches(sequence.hashes)
            assert [one.hash for one in found] == sequence.hashes[:6]
            assert (found[2].instance, found[2].tier) == at_2
            assert {(one.instance, one.tier) for one in found[4:]} == {("decode", Tier.G3)}
        assert await decode.find_matches(create_token_sequence(2, 16, 9000).hashes) == []


async def test_tiered_search_prefers_the_host_for_the_even_positions(pair):
    sequence = create_token_sequence(6, 16)
    populate_leader_with_blocks(pair.prefill, sequence, tier="G3")
    populate_leader_with_blocks(pair.prefill, sequence[::2], tier="G2")
    unknown = create_token_sequence(1, 16, 7777).hashes
    found = pair.prefill.scan_blocks([*sequence.hashes, *unknown])
    assert [one.hash for one in found.g2] == sequence.hashes[::2]
    assert [one.hash for one in found.g3] == sequence.hashes[1::2]
    assert found.missing == unknown


async def test_a_scan_jumps_gaps_and_a_match_does_not(pair):
    a, b = create_disjoint_sequences([(2, 0), (2, 1000)])
    populate_leader_with_blocks(pair.prefill, b)
    assert [one.hash for one in pair.prefill.scan_blocks([*a.hashes, *b.hashes]).g2] == b.hashes
    assert await pair.decode.find_matches([*a.hashes, *b.hashes]) == []


# --- whole blocks


@pytest.mark.parametrize("kind", LayoutKind)
@pytest.mark.parametrize("storage", StorageKind)
async def test_a_pull_moves_every_workers_bytes_and_nothing_else(kind, storage):
    if reason := storage_unavailable(storage):
        pytest.skip(reason)
    made = await create_instance_leader_pair_with_workers(12, 16, 2, SMALL, storage, layout_kind=kind)
    async with made as pair:
        populate_leader_with_blocks(pair.decode, 1, start=5000)
        async with await establish(pair) as session:
            src, dst = session.g2_blocks(), [9, 2, 7, 4]
            expected = checksums_of(pair.prefill, src)
            assert expected[0] != expected[1], "each worker has a shard of its own"
            guards = [create_guard_blocks(worker.g2, [1, 3, 8, 10]) for worker in pair.decode.workers]
            report = await session.pull_blocks(src, dst)
            assert (report.blocks, report.layers) == (4, (0, 1, 2))
            assert report.bytes == 2 * 4 * SMALL.block_bytes
            for worker, checksums, guarded in zip(pair.decode.workers, expected, guards, strict=True):
                checksums.verify_against(worker.g2, dst)
                verify_guard_blocks_unchanged(worker.g2, guarded)


async def test_pulled_blocks_can_be_registered_and_found(pair):
    sequence = create_token_sequence(3, 16)
    populate_leader_with_blocks(pair.prefill, sequence)
    async with await TestSession.establish(pair.prefill, pair.decode, sequence.hashes) as session:
        allocated = pair.decode.g2.allocate(3)
        await session.pull_blocks(session.g2_blocks(), allocated.block_ids)
        allocated.complete(sequence).register().release()
    assert {one.instance for one in await pair.decode.find_matches(sequence.hashes)} == {"decode"}


async def test_blocks_on_disk_are_staged_with_their_bytes(pair):
    sequence = create_token_sequence(4, 16)
    populate_leader_with_blocks(pair.prefill, sequence[1::2], tier="G3")
    populate_leader_with_blocks(pair.prefill, sequence[::2])
    on_disk = pair.prefill.g3.scan(sequence.hashes)
    disk = TransferChecksums.capture(pair.prefill.workers[1].g3, list(on_disk.values()))
    async with await TestSession.establish(pair.prefill, pair.decode, sequence.hashes) as session:
        assert session.phase() is SessionPhase.READY
        assert [block.hash for block in session.g2_blocks()] == sequence.hashes
        await session.pull_blocks(session.g2_blocks(), [0, 1, 2, 3])
        disk.verify_against(pair.decode.workers[1].g2, [1, 3])


async def test_a_block_has_the_same_bytes_in_every_tier(pair):
    sequence = create_token_sequence(1, 16)
    populate_leader_with_blocks(pair.prefill, 2, start=99)
    for tier in ("G2", "G3"):
        populate_leader_with_blocks(pair.prefill, sequence, tier=tier)
    worker = pair.prefill.workers[0]
    assert worker.g2.read_block(2) == worker.g3.read_block(0)


# --- layer by layer


async def test_the_puller_gets_exactly_the_layers_announced(pair):
    async with await establish(pair) as session:
        src, dst = session.g2_blocks(), [4, 5, 6, 7]
        expected = checksums_of(pair.prefill, src)
        await session.notify_layers_ready(range(2))
        report = await session.pull_blocks(src, dst, layers=[0])
        assert report.layers == (0,)
        assert differing_layers(pair, expected, dst) == {1, 2}
        await session.pull_blocks(src, dst, layers=[1])
        assert differing_layers(pair, expected, dst) == {2}


async def test_a_layer_that_is_not_announced_is_waited_for(pair):
    async with await establish(pair) as session:
        src, dst = session.g2_blocks(), [4, 5, 6, 7]
        expected = checksums_of(pair.prefill, src)
        await session.notify_layers_ready([0])
        waiting = asyncio.create_task(session.pull_blocks(src, dst, layers=[0, 2]))
        await session.notify_layers_ready([1])
        await session.pull_blocks(src, dst, layers=[1])
        assert not waiting.done()
        assert differing_layers(pair, expected, dst) == {0, 2}
        await session.notify_layers_ready(range(3))
        assert (await waiting).layers == (0, 2)
        assert differing_layers(pair, expected, dst) == set()


async def test_once_layers_are_announced_a_whole_pull_waits_for_the_last(pair):
    async with await establish(pair) as session:
        src, dst = session.g2_blocks(), [0, 1, 2, 3]
        expected = checksums_of(pair.prefill, src)
        await session.notify_layers_ready([0])
        waiting = asyncio.create_task(session.pull_blocks(src, dst))
        # Requests are served in order: had the whole pull asked for a layer, it would have arrived before this one.
        for layer in (0, 1):
            await session.notify_layers_ready([layer])
            await session.pull_blocks(src, [8, 9, 10, 11], layers=[layer])
        assert differing_layers(pair, expected, dst) == {0, 1, 2}
        assert not waiting.done()
        await session.notify_layers_ready([2])
        assert (await waiting).layers == (0, 1, 2)


async def test_the_holder_refuses_what_it_did_not_announce_whatever_the_puller_believes(pair):
    async with await establish(pair) as session:
        session._pulled.on_layers([0, 1, 2])
        with pytest.raises(SessionError, match="layer 1 of session 1 was not announced"):
            await session.pull_blocks(session.g2_blocks(), [0, 1, 2, 3], layers=[1])


async def test_waiting_for_a_layer_ends_at_the_deadline(pair):
    hashes = populate_leader_with_blocks(pair.prefill, 1)
    async with await TestSession.establish(pair.prefill, pair.decode, hashes) as session:
        session._timeout_s = 0
        with pytest.raises(SessionError, match=r"not layers \[1\] within 0 s"):
            await session.pull_blocks(session.g2_blocks(), [0], layers=[1])


# --- the end of a session


async def test_closing_refuses_at_once_who_waits_and_who_comes_later(pair):
    session = await establish(pair)
    src = session.g2_blocks()
    waiting = asyncio.create_task(session.pull_blocks(src, [0, 1, 2, 3], layers=[2]))
    await session.notify_layers_ready([0])
    await session.close()
    await session.close()
    with pytest.raises(SessionClosedError, match="it was closed"):
        await waiting
    with pytest.raises(SessionClosedError):
        await session.pull_blocks(src, [0, 1, 2, 3], layers=[0])
    with pytest.raises(SessionClosedError):
        await session.notify_layers_ready([1])
    assert session.phase() is SessionPhase.CLOSED
    assert session.g2_blocks() == []


async def test_blocks_are_pinned_exactly_as_long_as_the_session_lives(pair):
    session = await establish(pair)
    assert pair.prefill.g2.available == 12
    populate_manager_with_blocks(pair.prefill.g2, 12, start=4000)
    assert len(session.g2_blocks()) == len(pair.prefill.g2.scan([b.hash for b in session.g2_blocks()])) == 4
    await session.close()
    assert pair.prefill.g2.available == 16


async def test_a_session_without_blocks_or_room_is_refused(pair):
    with pytest.raises(SessionError, match="prefill has none of the 2 blocks"):
        await TestSession.establish(pair.prefill, pair.decode, create_token_sequence(2, 16).hashes)
    hashes = populate_leader_with_blocks(pair.prefill, 2, tier="G3")
    with pair.prefill.g2.allocate(15), pytest.raises(SessionClosedError, match="2 blocks asked for, 1 of 16 free"):
        await TestSession.establish(pair.prefill, pair.decode, hashes)
    assert (pair.prefill.g2.available, pair.prefill.g3.available) == (16, 16)


async def test_a_session_that_does_not_get_ready_in_time_is_given_up(pair, monkeypatch):
    hashes = populate_leader_with_blocks(pair.prefill, 1)
    monkeypatch.setattr(holding_module.HeldSession, "stage", lambda self: (_ for _ in ()).throw(TransferError("stuck")))
    with pytest.raises(SessionClosedError, match="stuck"):
        await TestSession.establish(pair.prefill, pair.decode, hashes)
    monkeypatch.undo()
    with pytest.raises(SessionError, match="not ready within 0 s"):
        await TestSession.establish(pair.prefill, pair.decode, hashes, 0)
    assert pair.prefill.g2.available == 16


async def test_a_second_puller_is_refused(pair):
    async with await establish(pair) as session:
        with pytest.raises(SessionError, match="decode pulls from session 1 of prefill already"):
            await pair.decode.attach("prefill", 1)
        with pytest.raises(SessionError, match="belongs to decode already"):
            session._held.attach("another")
    with pytest.raises(SessionClosedError, match="prefill has no session 77"):
        await pair.decode.attach("prefill", 77)


# --- what cannot be pulled


async def test_sources_and_destinations_must_fit(pair):
    async with await establish(pair) as session:
        src = session.g2_blocks()
        for dst, message in (
            ([0], "4 blocks cannot be pulled into 1"),
            ([0, 1, 2, 2], "names a block twice"),
            ([0, 1, 2, 16], "block 16 is outside"),
        ):
            with pytest.raises(TransferError, match=message):
                await session.pull_blocks(src, dst)
        with pytest.raises(SessionError, match="block 9 does not belong"):
            await session.pull_blocks([G2Block(src[0].hash, 9)], [0])
        with pytest.raises(ConfigurationError, match="layer 3 is announced, but blocks have 3 layers"):
            await session.notify_layers_ready(range(4))
        assert (await session.pull_blocks([], [])).bytes == 0


async def test_bytes_that_change_on_the_way_are_reported(pair, monkeypatch):
    async with await establish(pair) as session:
        serve = session._held.serve

        def corrupting(request):
            digests, parts = serve(request)
            return digests, [parts[0][:-1] + bytes((parts[0][-1] ^ 1,)), *parts[1:]]

        monkeypatch.setattr(session._held, "serve", corrupting)
        with pytest.raises(TransferError, match="did not arrive as it was sent"):
            await session.pull_blocks(session.g2_blocks(), [0, 1, 2, 3])


async def test_a_guard_block_catches_a_pull_into_the_wrong_place(pair):
    async with await establish(pair, 1) as session:
        guards = create_guard_blocks(pair.decode.workers[1].g2, [5])
        await session.pull_blocks(session.g2_blocks(), [5])
        with pytest.raises(GuardError, match="block 5, layer 0"):
            verify_guard_blocks_unchanged(pair.decode.workers[1].g2, guards)


# --- building and closing


async def test_pairs_that_cannot_work_are_refused_and_leave_nothing(tmp_path):
    threads = threading.active_count()
    with pytest.raises(ConfigurationError, match="0 workers"):
        await LeaderPairBuilder().workers(0).build_async()
    with pytest.raises(ConfigurationError, match="16 tokens per page and blocks of 8 tokens"):
        await LeaderPairBuilder().block_size(8).layout(SMALL).build_async()
    huge = LayoutConfig(1, inner_dim=1 << 55)
    with pytest.raises(StorageUnavailableError):
        await LeaderPairBuilder().layout(huge).storage(StorageKind.PINNED).block_count(4).build_async()
    assert threading.active_count() == threads


async def test_a_leader_without_room_takes_nothing(pair):
    with pytest.raises(CapacityError):
        populate_leader_with_blocks(pair.prefill, 17)
    assert pair.prefill.g2.resident == 0


async def test_a_closed_pair_answers_nothing_and_leaves_no_thread():
    threads = threading.active_count()
    pair = await create_instance_leader_pair(4, 16)
    session = await establish(pair, 1)
    src = session.g2_blocks()
    waiting = asyncio.create_task(session.pull_blocks(src, [0], layers=[0]))
    await session.notify_layers_ready([1])
    await pair.decode.close()
    with pytest.raises(SessionClosedError, match="decode is closed"):
        await waiting
    with pytest.raises(TransportError):
        await pair.decode.find_matches(create_token_sequence(1, 16).hashes)
    await pair.prefill.close()
    assert threading.active_count() == threads
