"""Agents: required, optional and missing backends; real transfers over each that exists."""

import threading

import pytest

from kvsync_testkit.agents import KNOWN_BACKENDS, AgentBuilder, backend_unavailable, skip_without_backend
from kvsync_testkit.agents import carriers as carriers_module
from kvsync_testkit.agents.agent import Agent
from kvsync_testkit.errors import BackendUnavailableError, ChecksumError, ConfigurationError, TransferError
from kvsync_testkit.physical import (
    FillPattern,
    LayoutConfig,
    LayoutKind,
    StorageKind,
    TransferChecksums,
    create_guard_blocks,
    create_layout,
    verify_guard_blocks_unchanged,
)

SMALL = LayoutConfig(blocks=5, layers=3, page_size=4, inner_dim=8)
REAL = ("POSIX", "SHM", "TCP")


@pytest.fixture
def missing(monkeypatch):
    """UCX is absent on this machine, whatever is installed."""
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)


@pytest.mark.parametrize("backend", REAL)
@pytest.mark.parametrize("dst_storage", [StorageKind.SYSTEM, StorageKind.DISK])
def test_a_transfer_moves_the_bytes_and_nothing_else(backend, dst_storage):
    skip_without_backend(backend)
    agent = AgentBuilder("worker").require_backend(backend).build()
    threads = threading.active_count()
    with create_layout(SMALL) as src, create_layout(SMALL, LayoutKind.LAYER_WISE, dst_storage) as dst:
        guards = create_guard_blocks(dst, [0, 4])
        checksums = TransferChecksums.fill_and_capture(src, [0, 1, 2], FillPattern.random(seed=3))
        assert agent.transfer(src, [0, 1, 2], dst, [3, 1, 2], backend=backend) == 3 * SMALL.block_bytes
        checksums.verify_against(dst, [3, 1, 2])
        verify_guard_blocks_unchanged(dst, guards)
    assert threading.active_count() == threads


@pytest.mark.parametrize("backend", REAL)
def test_megabytes_arrive_whole(backend):
    skip_without_backend(backend)
    big = LayoutConfig(blocks=4, layers=1, inner_dim=16_384)  # 1 MiB per layer of a block: more than a socket buffers
    with create_layout(big) as src, create_layout(big) as dst:
        checksums = TransferChecksums.fill_and_capture(src, [0, 1, 2, 3])
        AgentBuilder("bulk", required=[backend]).build().transfer(src, [0, 1, 2, 3], dst, [0, 1, 2, 3])
        checksums.verify_against(dst, [0, 1, 2, 3])


def test_a_corrupting_carrier_is_caught_by_checksums():
    class Corrupting:
        def carry(self, parts):
            return [parts[0][:-1] + bytes((parts[0][-1] ^ 0xFF,)), *parts[1:]]

    agent = Agent("bad", {"POSIX": Corrupting()}, {})
    with create_layout(SMALL) as src, create_layout(SMALL) as dst:
        checksums = TransferChecksums.fill_and_capture(src, [0, 1])
        agent.transfer(src, [0, 1], dst, [0, 1], layers=[2])
        with pytest.raises(ChecksumError, match=r"position 0 \(block 0\), layer 2"):
            checksums.verify_against(dst, [0, 1], layers=[2])


def test_a_losing_carrier_is_reported():
    class Losing:
        def carry(self, parts):
            return list(parts[1:])

    agent = Agent("bad", {"POSIX": Losing()}, {})
    with create_layout(SMALL) as layout, pytest.raises(TransferError, match="1 of 2 blocks arrived"):
        agent.transfer(layout, [0, 1], layout, [2, 3])


def test_a_connection_that_ends_early_is_reported(monkeypatch):
    def cut(sender, parts):
        sender.sendall(parts[0])
        sender.close()

    monkeypatch.setattr(carriers_module, "_send_all", cut)
    with pytest.raises(TransferError, match="ended after 0 of 3 bytes"):
        carriers_module.TcpCarrier().carry([b"abc", b"def"])


def test_a_missing_required_backend_fails_the_build_with_its_reason(missing):
    with pytest.raises(BackendUnavailableError, match="UCX: the UCX library libucp is not installed") as caught:
        AgentBuilder("worker").require_backend("UCX").try_backend("POSIX").build()
    assert (caught.value.name, caught.value.reason) == ("UCX", backend_unavailable("UCX"))


def test_a_missing_optional_backend_is_left_out_and_accounted_for(missing):
    agent = AgentBuilder("worker").try_backend("GDS_MT").try_backend("POSIX").build()
    assert not agent.has_backend("GDS_MT")
    assert agent.has_backend("POSIX")
    assert agent.backends == ("POSIX",)
    assert "libcufile is not installed" in agent.missing["GDS_MT"]
    with create_layout(SMALL) as layout, pytest.raises(BackendUnavailableError, match="libcufile"):
        agent.transfer(layout, [0], layout, [1], backend="GDS_MT")


def test_required_outweighs_optional(missing):
    with pytest.raises(BackendUnavailableError):
        AgentBuilder("worker").try_backend("UCX").require_backend("UCX").try_backend("UCX").build()


def test_an_agent_without_backends_transfers_nothing():
    with create_layout(SMALL) as layout, pytest.raises(BackendUnavailableError, match="no backend at all"):
        AgentBuilder("empty").build().transfer(layout, [0], layout, [1])


def test_an_unknown_backend_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigurationError, match="did you mean 'POSIX'"):
        AgentBuilder("worker").try_backend("posx").build()


def test_an_installed_library_is_not_taken_for_a_working_backend(monkeypatch):
    monkeypatch.setattr("ctypes.util.find_library", lambda name: f"lib{name}.so.0")
    assert "no transfer that uses it" in backend_unavailable("UCX")
    assert backend_unavailable("GDS_MT")
    assert set(KNOWN_BACKENDS) == {*REAL, "UCX", "GDS_MT"}


def test_skipping_carries_the_reason(missing):
    with pytest.raises(pytest.skip.Exception, match="backend UCX: the UCX library libucp is not installed"):
        skip_without_backend("POSIX", "UCX")
