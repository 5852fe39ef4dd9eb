"""Parts of the chaos runner that need no running system: its resources, limits of disks, and true states."""

import itertools
import json
import subprocess

import pytest

from kvsync_testkit.chaos import cgroups
from kvsync_testkit.chaos.__main__ import at_random
from kvsync_testkit.chaos.control_plane import _check_status
from kvsync_testkit.chaos.errors import CapabilityError
from kvsync_testkit.chaos.faults import FAULTS, choose_faults
from kvsync_testkit.chaos.local import LocalBackend
from kvsync_testkit.chaos.means import PROBE
from kvsync_testkit.chaos.sampler import Look, observed_lags
from kvsync_testkit.chaos.system import build_system
from kvsync_testkit.chaos.witness import SIGNS


def test_every_fault_of_the_event_plane_runs_with_and_without_a_host_tier():
    plane = [one for one in FAULTS if one.kind in ("plane", "reset")]
    without = {one.name for one in plane if not one.tiers}
    assert {f"{name}-tiers" for name in without} == {one.name for one in plane if one.tiers}
    assert {"events-restart-overtakes", "events-replay-lying", "events-replay-forging", "cache-reset"} <= without
    assert all(one.probe in SIGNS for one in plane)


def test_a_seed_chooses_the_faults_of_a_long_run_which_ends():
    faults = choose_faults("events")
    drawn = [one.name for one in itertools.islice(at_random(faults, 7, 60.0), 40)]
    assert drawn == [one.name for one in itertools.islice(at_random(faults, 7, 60.0), 40)]
    assert drawn != [one.name for one in itertools.islice(at_random(faults, 8, 60.0), 40)]
    assert [name.split("#")[1] for name in drawn] == [str(number) for number in range(1, 41)]
    assert {name.split("#")[0] for name in drawn} <= {one.name for one in faults}
    assert list(at_random(faults, 7, 0.0)) == []


def test_only_a_fault_of_the_disk_gives_the_index_a_snapshot_volume():
    for name in ("io-delay", "partition"):
        (fault,) = choose_faults(name)
        _, index = build_system(fault, "here")
        assert ("snapshot" in index["spec"]) == (name == "io-delay")


def test_a_test_can_run_another_image_of_the_index_with_its_own_environment():
    (fault,) = choose_faults("partition")
    engine, index = build_system(fault, "here", index_image="mine:1", index_env={"BUG": "this"})
    assert index["spec"]["template"] == {"image": "mine:1", "env": [{"name": "BUG", "value": "this"}]}
    assert "image" not in engine["spec"]["template"]
    assert "template" not in build_system(fault, "here")[1]["spec"]


@pytest.mark.parametrize("name", ["operator-kill", "api-outage"])
def test_processes_without_a_cluster_have_no_control_plane_to_break(name, tmp_path):
    (fault,) = choose_faults(name)
    with pytest.raises(CapabilityError, match="neither an operator nor an API server"):
        LocalBackend(tmp_path).preflight(fault)


def test_the_operations_on_a_disk_are_limited_and_the_limit_is_lifted(tmp_path):
    for name in ("read", "write"):
        (tmp_path / f"blkio.throttle.{name}_iops_device").touch()
    cgroups.limit_operations(tmp_path, tmp_path, 10)
    written = (tmp_path / "blkio.throttle.write_iops_device").read_text()
    assert written.endswith(" 10")
    assert written == (tmp_path / "blkio.throttle.read_iops_device").read_text()
    cgroups.limit_operations(tmp_path, tmp_path, 0)
    assert (tmp_path / "blkio.throttle.write_iops_device").read_text().endswith(" 0")


def test_a_group_of_version_2_has_one_file_for_both_directions(tmp_path):
    (tmp_path / "io.max").touch()
    cgroups.limit_operations(tmp_path, tmp_path, 10)
    assert (tmp_path / "io.max").read_text().endswith(" riops=10 wiops=10")
    cgroups.limit_operations(tmp_path, tmp_path, 0)
    assert (tmp_path / "io.max").read_text().endswith(" riops=max wiops=max")


def test_a_kernel_that_limits_no_disk_lacks_the_capability(tmp_path):
    with pytest.raises(CapabilityError, match="cannot limit device"):
        cgroups.limit_operations(tmp_path / "nothing", tmp_path, 10)


def test_the_probe_of_a_disk_measures_a_write_and_leaves_no_file(tmp_path):
    done = subprocess.run([*PROBE, "store", str(tmp_path)], input="go\n", capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["seconds"] > 0
    assert list(tmp_path.iterdir()) == []


TRUE = {"observedGeneration": 3, "readyReplicas": 4, "conditions": [{"type": "Ready", "status": "True"}]}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"observedGeneration": 2}, "status is of generation 2"),
        ({"readyReplicas": 3}, "status says 3 ready replicas"),
        ({"conditions": [{"type": "Ready", "status": "False"}]}, "condition Ready is"),
    ],
)
def test_a_status_that_is_not_true_is_found(changed, says):
    resource = {"metadata": {"generation": 3}, "status": TRUE}
    _check_status(resource, 4)
    with pytest.raises(AssertionError, match=says):
        _check_status({**resource, "status": TRUE | changed}, 4)


def looks(*pairs):
    """Samples, one second apart, of (last number in the engine, last number in the index)."""
    return [
        Look(float(at), {"e": {"last_seq": index}} if index is not None else None, {"e": (1, engine)})
        for at, (engine, index) in enumerate(pairs)
    ]


@pytest.mark.parametrize(
    ("pairs", "lags"),
    [
        ([(1, 1), (5, 5), (6, 7)], [0, 0, 0]),
        ([(1, 1), (5, 1), (9, 1), (9, 5), (9, 9)], [0, 0, 1, 1, 0]),
        ([(9, 9), (20, 9), (20, None), (20, 9)], [0, 0, 2]),
        ([(9, 9), (0, 9), (3, 0), (3, 3)], [0, 0, 0, 0]),
    ],
)
def test_the_lag_of_the_index_is_measured_from_what_the_engines_have_published(pairs, lags):
    assert [lag for _, _, lag in observed_lags(looks(*pairs))] == lags
