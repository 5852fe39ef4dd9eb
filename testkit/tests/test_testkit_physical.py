"""Block layouts in real memory: addresses, patterns, checksums and guards, over every pair of kinds."""

import itertools
import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from kvsync_testkit.errors import ChecksumError, ConfigurationError, GuardError, StorageUnavailableError, TransferError
from kvsync_testkit.physical import (
    FillPattern,
    LayoutConfig,
    LayoutKind,
    PhysicalLayout,
    StorageKind,
    TransferChecksums,
    copy_blocks,
    create_guard_blocks,
    create_layout,
    fill_blocks,
    standard_config,
    storage_unavailable,
    verify_guard_blocks_unchanged,
)
from kvsync_testkit.physical.memory import PinnedRegion

SMALL = LayoutConfig(blocks=6, layers=3, outer_dim=2, page_size=4, inner_dim=8, dtype_width=2)
FC, LW = LayoutKind.FULLY_CONTIGUOUS, LayoutKind.LAYER_WISE


@pytest.fixture(params=list(itertools.product(LayoutKind, StorageKind)), ids=lambda p: f"{p[0].value}-{p[1].value}")
def layout(request, tmp_path):
    kind, storage = request.param
    if reason := storage_unavailable(storage):
        pytest.skip(reason)
    with create_layout(SMALL, kind, storage, directory=tmp_path) as made:
        yield made


def test_the_standard_shape():
    config = standard_config(8)
    assert (config.blocks, config.layers, config.page_size) == (8, 2, 16)
    assert config.layer_bytes == 2 * 16 * 128 * 2
    assert config.total_bytes == 8 * config.block_bytes


def test_a_layout_without_blocks_is_refused():
    with pytest.raises(ConfigurationError, match="blocks 0"):
        standard_config(0)


def test_addresses_are_those_of_the_layout_kind():
    with create_layout(SMALL, FC) as contiguous, create_layout(SMALL, LW) as layerwise:
        assert contiguous.locate(2, 1) == (contiguous.regions[0], 2 * SMALL.block_bytes + SMALL.layer_bytes)
        assert layerwise.locate(2, 1) == (layerwise.regions[1], 2 * SMALL.layer_bytes)
        assert [len(contiguous.regions), len(layerwise.regions)] == [1, 3]
        assert sum(r.size for r in layerwise.regions) == SMALL.total_bytes


def test_every_layer_of_every_block_has_bytes_of_its_own(layout):
    fill_blocks(layout, range(6), FillPattern.sequential())
    parts = {layout.read_layer(block, layer) for block in range(6) for layer in range(3)}
    assert len(parts) == 18
    block = layout.read_block(3)
    layout.write_block(0, block)
    assert layout.read_block(0) == block
    assert layout.read_block(1) not in (block, layout.read_block(2))


@pytest.mark.parametrize(("block", "layer"), [(6, 0), (-1, 0), (0, 3), (0, -1)])
def test_places_outside_the_layout_are_refused(layout, block, layer):
    with pytest.raises(TransferError, match="outside a layout"):
        layout.read_layer(block, layer)
    with pytest.raises(TransferError):
        layout.write_layer(block, layer, bytes(SMALL.layer_bytes))


def test_a_write_of_the_wrong_length_is_refused(layout):
    with pytest.raises(TransferError, match="not 1"):
        layout.write_layer(0, 0, b"x")
    with pytest.raises(TransferError):
        layout.write_block(0, bytes(SMALL.layer_bytes))


@pytest.mark.parametrize("dst_kind", LayoutKind)
@pytest.mark.parametrize("dst_storage", StorageKind)
def test_checksums_prove_a_copy_between_any_two_kinds(layout, dst_kind, dst_storage, tmp_path):
    if reason := storage_unavailable(dst_storage):
        pytest.skip(reason)
    with create_layout(SMALL.with_blocks(9), dst_kind, dst_storage, directory=tmp_path) as dst:
        guards = create_guard_blocks(dst, [0, 4, 8])
        checksums = TransferChecksums.fill_and_capture(layout, [1, 3, 5], FillPattern.random(seed=7))
        assert copy_blocks(layout, [1, 3, 5], dst, [7, 1, 3]) == 3 * SMALL.block_bytes
        checksums.verify_against(dst, [7, 1, 3])
        verify_guard_blocks_unchanged(dst, guards)


def test_one_flipped_bit_is_found_and_named(layout):
    checksums = TransferChecksums.fill_and_capture(layout, [2, 4])
    region, offset = layout.locate(4, 1)
    byte = region.read(offset + 5, 1)[0]
    region.write(offset + 5, bytes((byte ^ 1,)))
    with pytest.raises(ChecksumError, match=r"position 1 \(block 4\), layer 1 are not those captured$"):
        checksums.verify_against(layout, [2, 4])
    checksums.verify_against(layout, [2, 4], layers=[0, 2])


def test_swapped_blocks_are_found(layout):
    checksums = TransferChecksums.fill_and_capture(layout, [0, 1])
    copy_blocks(layout, [0, 1], layout, [1, 0])
    with pytest.raises(ChecksumError, match="and 5 more"):
        checksums.verify_against(layout, [0, 1])
    checksums.verify_against(layout, [1, 0])


def test_a_write_past_its_block_is_caught_by_a_guard():
    with create_layout(SMALL, FC) as layout:
        guards = create_guard_blocks(layout, [3, 5])
        region, offset = layout.locate(4, 0)
        region.write(offset, bytes(SMALL.block_bytes))
        verify_guard_blocks_unchanged(layout, guards)
        region.write(offset, bytes(SMALL.block_bytes + 1))
        with pytest.raises(GuardError, match="block 5, layer 0"):
            verify_guard_blocks_unchanged(layout, guards)


def test_layers_can_be_copied_alone():
    with create_layout(SMALL, FC) as src, create_layout(SMALL, LW) as dst:
        checksums = TransferChecksums.fill_and_capture(src, [0, 1])
        assert copy_blocks(src, [0, 1], dst, [4, 5], layers=[2]) == 2 * SMALL.layer_bytes
        checksums.verify_against(dst, [4, 5], layers=[2])
        assert {m.layer for m in checksums.mismatches(dst, [4, 5])} == {0, 1}


@pytest.mark.parametrize(
    ("src_ids", "dst_ids", "layers", "message"),
    [
        ([0, 1], [0], None, "2 blocks cannot be copied to 1"),
        ([0, 1], [2, 2], None, "names a block twice"),
        ([0], [6], None, "block 6 is outside"),
        ([9], [0], None, "block 9 is outside"),
        ([0], [0], [3], "layer 3 is outside"),
    ],
)
def test_a_copy_that_does_not_fit_moves_nothing(src_ids, dst_ids, layers, message):
    with create_layout(SMALL) as src, create_layout(SMALL) as dst:
        fill_blocks(src, range(6), FillPattern.constant(9))
        with pytest.raises(TransferError, match=message):
            copy_blocks(src, src_ids, dst, dst_ids, layers=layers)
        assert not any(dst.read_block(0))


def test_other_shapes_and_counts_are_refused():
    with create_layout(SMALL) as src, create_layout(standard_config(6)) as dst:
        with pytest.raises(TransferError, match="do not fit"):
            copy_blocks(src, [0], dst, [0])
        with pytest.raises(ConfigurationError, match="1 blocks are compared with the checksums of 2"):
            TransferChecksums.capture(src, [0, 1]).verify_against(src, [0])


def test_patterns_are_the_same_every_time_and_differ_by_seed():
    assert FillPattern.random(1).part(3, 10) == FillPattern.random(1).part(3, 10)
    assert FillPattern.random(1).part(3, 10) != FillPattern.random(2).part(3, 10)
    assert FillPattern.constant(255).part(0, 3) == b"\xff\xff\xff"
    assert FillPattern.sequential().part(1, 12) == b"\x02" + bytes(7) + b"\x03" + bytes(3)
    with pytest.raises(ConfigurationError):
        FillPattern.constant(256)


def test_disk_blocks_are_bytes_of_a_real_file(tmp_path):
    built = PhysicalLayout.builder().config(SMALL).kind(LW).storage(StorageKind.DISK).directory(tmp_path).build()
    with built as layout:
        fill_blocks(layout, [1], FillPattern.sequential())
        region, offset = layout.locate(1, 2)
        region.flush()
        assert region.path.read_bytes()[offset : offset + SMALL.layer_bytes] == layout.read_layer(1, 2)
        assert len(list(tmp_path.iterdir())) == 3
    assert list(tmp_path.iterdir()) == []


def test_another_process_sees_shared_blocks():
    if reason := storage_unavailable(StorageKind.SHARED):
        pytest.skip(reason)
    with PhysicalLayout.builder().blocks(2).storage(StorageKind.SHARED).build() as layout:
        fill_blocks(layout, [0], FillPattern.constant(0x5A))
        file = Path("/dev/shm") / layout.regions[0].name
        if not file.exists():
            pytest.skip("this system does not show shared memory segments as files in /dev/shm")
        script = "import sys; f = open(sys.argv[1], 'r+b'); print(f.read(1).hex()); f.seek(0); f.write(b'Z!')"
        out = subprocess.run([sys.executable, "-c", script, file], capture_output=True, text=True, check=True)
        assert out.stdout.strip() == "5a"
        assert layout.read_layer(0, 0)[:2] == b"Z!"
        with layout.regions[0].attach() as second:
            assert second.read(0, 2) == b"Z!"
        assert layout.read_layer(0, 0)[:2] == b"Z!"
    assert not file.exists()


def locked_kib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmLck:"))


def test_pinned_blocks_are_locked_by_the_kernel():
    if reason := storage_unavailable(StorageKind.PINNED):
        pytest.skip(reason)
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not tell how much memory is locked")
    before = locked_kib()
    region = PinnedRegion(4 * mmap.PAGESIZE)
    assert locked_kib() - before == 4 * mmap.PAGESIZE // 1024
    region.close()
    assert locked_kib() == before


def test_a_refused_lock_is_a_typed_error_with_its_reason():
    # A child without privileges and with a limit of one page stands for a system that does not permit locking.
    script = (
        "import os, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_MEMLOCK, (4096, 4096))\n"
        "os.geteuid() or os.setuid(65534)\n"
        "print(storage_unavailable(StorageKind.PINNED, 1 << 20))\n"
    )
    head = "from kvsync_testkit.physical import StorageKind, storage_unavailable\n"
    out = subprocess.run([sys.executable, "-c", head + script], capture_output=True, text=True, check=True, cwd="/")
    assert "RLIMIT_MEMLOCK is 4096 bytes" in out.stdout
    assert "mlock of 1048576 bytes failed" in out.stdout


@pytest.mark.parametrize("storage", StorageKind)
def test_more_than_the_system_has_is_a_typed_error_and_leaves_nothing(storage, tmp_path):
    with pytest.raises(StorageUnavailableError):
        PhysicalLayout(LayoutConfig(1 << 30, inner_dim=1 << 30), LW, storage, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_closed_regions_answer_nothing(layout):
    layout.close()
    with pytest.raises((TransferError, ValueError, OSError)):
        layout.read_layer(0, 0)
