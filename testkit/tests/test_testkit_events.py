"""The event pipeline: batching in virtual time, two buses with the same behaviour, policies and scripted faults."""

import threading

import msgspec
import pytest

from kvsync_events import BlockRemoved, BlockStored, DecodeError, event_hash
from kvsync_testkit.clock import VirtualClock
from kvsync_testkit.errors import BusError, ConfigurationError
from kvsync_testkit.events import (
    EventsPipelineBuilder,
    EventsPipelineFixture,
    FaultScript,
    PowersOfTwo,
    StubBus,
    ZmqBus,
)
from kvsync_testkit.managers import populate_manager_with_blocks
from kvsync_testkit.token_blocks import create_token_sequence

BUSES = ("stub", "zmq")


@pytest.fixture(params=BUSES)
def bus(request):
    return request.param


async def publish(pipeline, batches, *, tier="G1"):
    """This many batches of one block each."""
    manager = pipeline.create_manager(tier, 64, 4)
    for number in range(batches):
        populate_manager_with_blocks(manager, 1, start=1000 * number)
        pipeline.publisher.flush()


async def sequences(pipeline, count):
    return [(await pipeline.receive_batch()).seq for _ in range(count)]


async def test_a_stored_block_reaches_the_subscriber_as_wire_bytes(bus):
    builder = EventsPipelineFixture.builder().batching_window(5).instance_id(7).subject("kv").bus(bus)
    async with await builder.build_async() as pipeline:
        manager = pipeline.create_manager("G2", 8, 4)
        sequence = create_token_sequence(2, 4)
        populate_manager_with_blocks(manager, sequence)
        received = await pipeline.flush_and_receive()
        assert (received.instance_id, received.seq) == ("7", 0)
        (stored,) = received.events
        assert isinstance(stored, BlockStored)
        assert stored.block_hashes == [event_hash(h) for h in sequence.hashes]
        assert (stored.medium, list(stored.token_ids)) == ("CPU", sequence.tokens)


async def test_a_window_collects_what_happens_within_it():
    async with await EventsPipelineBuilder(batching_window=10).build_async() as pipeline:
        manager = pipeline.create_manager("G1", 2, 4)
        pipeline.clock.advance(100.0)
        populate_manager_with_blocks(manager, 1)
        pipeline.clock.advance(0.009)
        populate_manager_with_blocks(manager, 1, start=100)
        with pytest.raises(BusError, match="0 made, 0 delayed, 2 events wait"):
            await pipeline.receive_batch()
        pipeline.clock.advance(0.001)
        first = await pipeline.receive_batch()
        assert [type(e) for e in first.events] == [BlockStored, BlockStored]
        assert first.batch.ts == pytest.approx(100.010)
        populate_manager_with_blocks(manager, 2, start=200)
        pipeline.clock.advance(0.010)
        second = await pipeline.receive_batch()
        assert [type(e) for e in second.events] == [BlockRemoved, BlockRemoved, BlockStored]
        assert second.seq == 1


async def test_a_flush_ends_its_window_and_not_the_next_one(events_pipeline, virtual_clock):
    pipeline = await events_pipeline(batching_window=10)
    manager = pipeline.create_manager("G1", 8, 4)
    populate_manager_with_blocks(manager, 1)
    virtual_clock.advance(0.005)
    await pipeline.flush_and_receive()
    populate_manager_with_blocks(manager, 1, start=100)
    virtual_clock.advance(0.009)
    assert pipeline.publisher.batches == 1
    virtual_clock.advance(0.001)
    assert (await pipeline.receive_batch()).seq == 1


async def test_without_a_window_every_change_is_a_batch():
    async with await EventsPipelineBuilder(batching_window=0).build_async() as pipeline:
        manager = pipeline.create_manager("G1", 8, 4)
        for number in range(3):
            populate_manager_with_blocks(manager, 1, start=100 * number)
        assert await sequences(pipeline, 3) == [0, 1, 2]
        assert pipeline.clock.now == 0.0


async def test_a_late_subscriber_gets_nothing_from_before(bus):
    async with await EventsPipelineBuilder(bus=bus, subject="kv").build_async() as pipeline:
        await publish(pipeline, 1)
        late = await pipeline.bus.subscribe("kv")
        assert late.outstanding == 0
        with pytest.raises(BusError, match="nothing arrived"):
            await late.receive(timeout_s=0)
        await publish(pipeline, 1)
        assert (await late.receive())[1] == (1).to_bytes(8, "big")
        assert await sequences(pipeline, 2) == [0, 1]


async def test_nothing_to_receive_is_known_at_once(bus):
    async with await EventsPipelineBuilder(bus=bus).build_async() as pipeline:
        with pytest.raises(BusError, match="no batch is on its way: 0 made"):
            await pipeline.flush_and_receive()


async def test_instances_on_one_bus_are_told_apart(bus):
    with ZmqBus() if bus == "zmq" else StubBus() as shared:
        clock = VirtualClock()
        a = await EventsPipelineBuilder(bus=shared, instance_id="a", clock=clock).build_async()
        b = await EventsPipelineBuilder(bus=shared, instance_id="b", clock=clock).build_async()
        other = await EventsPipelineBuilder(bus=shared, subject="other").build_async()
        await publish(a, 1)
        await publish(b, 1)
        assert [(await a.receive_batch()).instance_id for _ in range(2)] == ["a", "b"]
        with pytest.raises(BusError):
            await other.receive_batch()
        a.close()
        await publish(b, 1)
        assert [(await b.receive_batch()).seq for _ in range(3)] == [0, 0, 1]


async def test_the_powers_of_two_policy_thins_the_stream(bus):
    async with await EventsPipelineBuilder(bus=bus, policy=PowersOfTwo()).build_async() as pipeline:
        sequence = create_token_sequence(10, 4)
        populate_manager_with_blocks(pipeline.create_manager("G2", 16, 4), sequence)
        received = await pipeline.flush_and_receive()
        assert [e.block_hashes for e in received.events] == [[event_hash(sequence.hashes[i])] for i in (1, 2, 4, 8)]


async def test_faults_strike_the_batches_they_name(bus):
    script = FaultScript().lose(1).duplicate(2).reorder(4).corrupt(6).restart(8)
    async with await EventsPipelineBuilder(bus=bus, faults=script).build_async() as pipeline:
        await publish(pipeline, 9)
        assert await sequences(pipeline, 6) == [0, 2, 2, 3, 5, 4]
        with pytest.raises(DecodeError):
            await pipeline.receive_batch()
        assert await sequences(pipeline, 2) == [7, 0]
        assert pipeline.subscription.outstanding == 0


async def test_a_delayed_batch_is_overtaken_and_arrives_in_virtual_time(bus):
    script = FaultScript().delay(0, seconds=2.0)
    async with await EventsPipelineBuilder(bus=bus, faults=script).build_async() as pipeline:
        await publish(pipeline, 2)
        assert await sequences(pipeline, 1) == [1]
        pipeline.clock.advance(1.999)
        with pytest.raises(BusError, match="2 made, 1 delayed"):
            await pipeline.receive_batch()
        pipeline.clock.advance(0.001)
        assert await sequences(pipeline, 1) == [0]


async def test_a_batch_held_back_for_reordering_waits_for_one_that_is_not_lost():
    script = FaultScript().reorder(0).lose(1)
    async with await EventsPipelineBuilder(faults=script).build_async() as pipeline:
        await publish(pipeline, 2)
        assert script.held == 1
        await publish(pipeline, 1)
        assert await sequences(pipeline, 2) == [2, 0]
        assert script.held == 0


def test_two_faults_of_one_batch_are_refused():
    with pytest.raises(ConfigurationError, match="batch 3: corrupt contradicts lose"):
        FaultScript().lose(3).corrupt(3)


@pytest.mark.parametrize("make", [StubBus, ZmqBus])
async def test_a_full_subscription_stops_the_publisher(make):
    with make(capacity=3) as bus:
        subscription = await bus.subscribe("a")
        for number in range(3):
            bus.publish([b"a", bytes(8), bytes((number,))])
        with pytest.raises(BusError, match="3 messages that nothing received"):
            bus.publish([b"a", bytes(8), b"\x03"])
        bus.publish([b"b", bytes(8), b""])
        assert [(await subscription.receive())[2][0] for _ in range(3)] == [0, 1, 2]
        assert bus.published == 4


@pytest.mark.parametrize("make", [StubBus, ZmqBus])
async def test_a_closed_subscription_holds_nobody_up(make):
    with make(capacity=2) as bus:
        (await bus.subscribe("a")).close()
        for _ in range(5):
            bus.publish([b"a", bytes(8), b""])


@pytest.mark.parametrize("make", [StubBus, ZmqBus])
async def test_a_closed_bus_refuses_and_leaves_no_thread(make):
    threads = threading.active_count()
    bus = make()
    subscription = await bus.subscribe()
    bus.close()
    bus.close()
    assert threading.active_count() == threads
    with pytest.raises(BusError, match="closed"):
        bus.publish([b"", bytes(8), b""])
    with pytest.raises(BusError, match="closed"):
        await bus.subscribe()
    with pytest.raises(BusError, match="closed"):
        await subscription.receive()


async def test_settings_that_cannot_work_are_refused():
    with pytest.raises(ConfigurationError, match="did you mean 'zmq'"):
        await EventsPipelineBuilder().bus("zmqq").build_async()
    with pytest.raises(ConfigurationError, match="cannot be negative"):
        await EventsPipelineBuilder().batching_window(-1).build_async()
    with pytest.raises(ConfigurationError, match="a dot would divide the topic"):
        await EventsPipelineBuilder().instance_id("a.b").build_async()


@pytest.mark.parametrize(("version", "shape"), [("0.17.0", list), ("0.33.0", dict)])
async def test_each_consumer_version_gets_its_encoding(version, shape):
    async with await EventsPipelineFixture.builder().wire_version(version).build_async() as pipeline:
        await publish(pipeline, 1)
        payload = (await pipeline.receive_frames())[2]
        assert type(msgspec.msgpack.decode(payload)[1][0]) is shape


async def test_the_same_run_gives_the_same_bytes(bus):
    runs = []
    for _ in range(2):
        async with await EventsPipelineBuilder(bus=bus).build_async() as pipeline:
            await publish(pipeline, 3, tier="G3")
            runs.append([await pipeline.receive_frames() for _ in range(3)])
    assert runs[0] == runs[1]
