"""The connector: strict configuration, and a leader and worker that really save and load blocks."""

import json
import threading

import pytest

from kvsync_testkit.connector import ConnectorRole, ConnectorTestConfig
from kvsync_testkit.errors import BackendUnavailableError, CapacityError, ConfigurationError, TransferError
from kvsync_testkit.physical import (
    LayoutConfig,
    TransferChecksums,
    create_guard_blocks,
    standard_config,
    verify_guard_blocks_unchanged,
)

SHAPE = LayoutConfig(1, layers=3, page_size=4, inner_dim=8)
BASE = {"kv_connector": "TestConnector", "kv_role": "kv_both"}


def from_json(extra=None, **changes):
    return ConnectorTestConfig.from_json(json.dumps({**BASE, **changes, "kv_connector_extra_config": extra or {}}))


def test_a_cache_size_becomes_a_number_of_blocks():
    settings = ConnectorTestConfig().leader_cache_gb(1.0).worker_threads(2).settings()
    assert settings.host_blocks == (1 << 30) // standard_config(1).block_bytes
    assert settings.worker_threads == 2
    assert ConnectorTestConfig(leader_cache_gb=1.0, worker_threads=2).settings() == settings
    assert from_json({"leader_cache_gb": 1, "worker_threads": 2}).settings() == settings


def test_json_and_builder_say_the_same():
    built = (
        ConnectorTestConfig()
        .role("kv_producer")
        .leader_cache_blocks(10)
        .leader_disk_gb(0.5)
        .device_blocks(8)
        .block_size(32)
        .backends("TCP", "POSIX")
    )
    extra = {
        "leader_cache_blocks": 10,
        "leader_disk_gb": 0.5,
        "device_blocks": 8,
        "block_size": 32,
        "backends": ["TCP", "POSIX"],
    }
    assert from_json(extra, kv_role="kv_producer", kv_rank=1, kv_parallel_size=2).settings() == built.settings()
    assert built.settings().role is ConnectorRole.PRODUCER


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: from_json(kv_conector="x"), "unknown key of kv_transfer_config 'kv_conector': did you mean 'kv_con"),
        (lambda: from_json({"leader_cache_gib": 1}), "did you mean 'leader_cache_gb'"),
        (lambda: from_json({"zzz": 1}), "it is one of leader_cache_gb, "),
        (lambda: from_json({"worker_threads": "2"}), "worker_threads '2': Expected `int`"),
        (lambda: from_json({"leader_cache_gb": 1, "leader_cache_blocks": 1}), "contradicts"),
        (lambda: from_json(kv_rank=2, kv_parallel_size=2), "kv_rank 2 contradicts kv_parallel_size 2"),
        (lambda: ConnectorTestConfig.from_json('{"kv_connector": "x"}'), "kv_role is missing"),
        (lambda: ConnectorTestConfig.from_json('{"kv_role": "kv_both"}'), "kv_connector is missing"),
        (lambda: ConnectorTestConfig.from_json("[1]"), "kv_transfer_config: Expected `object`"),
        (lambda: ConnectorTestConfig.from_json("{"), "kv_transfer_config"),
        (lambda: from_json(kv_role="kv_prducer"), "did you mean 'kv_producer'"),
        (lambda: ConnectorTestConfig().leader_cache_gb(1).leader_cache_blocks(2).settings(), "give one of them"),
        (lambda: ConnectorTestConfig().block_size(8).layout(standard_config(1)).settings(), "block_size 8 contradicts"),
        (lambda: ConnectorTestConfig().leader_cache_gb(0.00001).settings(), "no room for one block"),
        (lambda: ConnectorTestConfig().leader_cache_gb(float("nan")).settings(), "nan GiB"),
        (lambda: ConnectorTestConfig().worker_threads(0).settings(), "worker_threads 0"),
        (lambda: ConnectorTestConfig().device_blocks(0).settings(), "device_blocks 0"),
        (lambda: ConnectorTestConfig().backends().settings(), "backends is empty"),
        (lambda: ConnectorTestConfig().backends("PSIX").build_worker(), "did you mean 'POSIX'"),
    ],
)
def test_what_is_unknown_or_contradictory_is_refused(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_a_missing_backend_fails_the_worker(monkeypatch):
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    with pytest.raises(BackendUnavailableError, match="UCX"):
        ConnectorTestConfig().backends("UCX").build_worker()


def small(**changes):
    settings = {"layout": SHAPE, "block_size": 4, "leader_cache_blocks": 8, "device_blocks": 12, "worker_threads": 2}
    return ConnectorTestConfig(**{**settings, **changes})


def test_saved_blocks_come_back_with_their_bytes():
    config = small()
    leader, tokens = config.build_leader(), list(range(18))
    with config.build_worker() as worker:
        device_ids = [3, 1, 7, 5]
        checksums = TransferChecksums.fill_and_capture(worker.device, device_ids)
        assert leader.matched_tokens(tokens) == 0
        plan = leader.plan_save(tokens)
        assert plan.positions == (0, 1, 2, 3)
        assert worker.save([device_ids[i] for i in plan.positions], plan.host_ids).result() == 4 * SHAPE.block_bytes
        assert leader.matched_tokens(tokens) == 0, "nothing is found before its bytes are in place"
        leader.finish_save(plan)
        assert leader.matched_tokens(tokens) == 16
        guards = create_guard_blocks(worker.device, [7, 11])
        load = leader.plan_load(tokens)
        worker.load(load.host_ids, [8, 9, 10, 6]).result()
        load.release()
        checksums.verify_against(worker.device, [8, 9, 10, 6])
        verify_guard_blocks_unchanged(worker.device, guards)
    assert leader.g2.available == 8


def test_only_new_blocks_are_saved_and_only_missing_ones_loaded():
    leader = small().build_leader()
    leader.finish_save(leader.plan_save(list(range(8))))
    plan = leader.plan_save(list(range(16)))
    assert plan.positions == (2, 3)
    leader.finish_save(plan)
    assert leader.matched_tokens(list(range(17)), computed=8) == 8
    load = leader.plan_load(list(range(17)), computed=8)
    assert (load.positions, load.host_ids) == ((2, 3), plan.host_ids)
    load.release()
    with pytest.raises(ConfigurationError, match="6 computed tokens"):
        leader.plan_load(list(range(17)), computed=6)


def test_the_last_token_of_a_cached_prompt_is_left_to_compute():
    leader = small().build_leader()
    leader.finish_save(leader.plan_save(list(range(8))))
    assert leader.matched_tokens(list(range(8))) == 4
    assert leader.matched_tokens(list(range(9))) == 8
    assert leader.matched_tokens([]) == 0


def test_a_full_cache_refuses_while_loads_hold_it():
    leader = small().build_leader()
    leader.finish_save(leader.plan_save(list(range(32))))
    load = leader.plan_load(list(range(33)))
    with pytest.raises(CapacityError):
        leader.plan_save(list(range(500, 504)))
    load.release()
    assert leader.plan_save(list(range(500, 504))).positions == (0,)


def test_roles_are_kept():
    tokens = list(range(9))
    with pytest.raises(ConfigurationError, match="kv_consumer saves nothing"):
        small(role="kv_consumer").build_leader().plan_save(tokens)
    with pytest.raises(ConfigurationError, match="kv_producer loads nothing"):
        small(role="kv_producer").build_leader().plan_load(tokens)


def test_a_disk_tier_exists_only_if_it_was_asked_for():
    assert small().build_leader().g3 is None
    assert small(leader_disk_gb=0.001).build_leader().g3.block_count == int(0.001 * (1 << 30)) // SHAPE.block_bytes


def test_transfers_that_do_not_fit_fail_their_future_and_threads_end():
    threads = threading.active_count()
    with small().build_worker() as worker, pytest.raises(TransferError, match="block 12 is outside"):
        worker.save([12], [0]).result()
    assert threading.active_count() == threads
