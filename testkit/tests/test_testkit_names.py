"""The public names of the kit: what other projects import, pinned so that a change of them is a decision."""

import ast
import importlib
from pathlib import Path

import pytest

import kvsync_testkit

PUBLIC = {
    "agents": "KNOWN_BACKENDS Agent AgentBuilder Carrier backend_unavailable skip_without_backend",
    "browser": "LOOKS Browser Look OpenPage find_chromium open_browser",
    "checks": (
        "Answer AppliedBatch Forgotten History Holding Isolated Limits Outcome RequestSent Row Rows Sample Sighting "
        "Transition TrustSample Verdict Violation check_agreement check_bounds check_cleared check_counts "
        "check_departure check_epoch check_isolation check_no_departed_target check_no_false_positive check_no_loss "
        "check_non_interference check_one_outcome check_prefix_closure check_sequence check_staleness judge "
        "parse_rows require_kept"
    ),
    "checks.model": "BUGS record_history",
    "clock": "AsyncVirtualClock Timer VirtualClock",
    "cluster": (
        "Answer Asked Change FakeKube Fault Kube KubeError Object RefusedError Store TestNamespaces Watch condition "
        "dump_namespace find_kubeconfig is_ready sweep_namespaces wait_until wait_while"
    ),
    "connector": (
        "ConnectorLeader ConnectorRole ConnectorSettings ConnectorTestConfig ConnectorWorker LoadPlan SavePlan"
    ),
    "distributed": (
        "G2Block InstanceLeader InstanceWorker LeaderPair LeaderPairBuilder LocatedBlock PullReport ScanResult "
        "SessionPhase TestSession create_instance_leader_pair create_instance_leader_pair_with_workers find_matches "
        "populate_leader_with_blocks scan_blocks"
    ),
    "errors": (
        "BackendUnavailableError BrowserUnavailableError BusError CapacityError ChecksumError ConfigurationError "
        "GuardError InvariantError "
        "KitError SessionClosedError SessionError StorageUnavailableError TransferError TransportError "
        "UnavailableError"
    ),
    "events": (
        "AllEvents BatchingPublisher Bus Delivery EventPolicy EventsManager EventsPipelineBuilder "
        "EventsPipelineFixture FaultHook FaultScript NoFaults PowersOfTwo ReceivedBatch StubBus Subscription ZmqBus"
    ),
    "faults": (
        "REAL Delivery Fault FaultHook FaultScript ModelProcess NoFaults Outcome Published Schedule Simulation Subject "
        "Workload build_core build_native_core expand_schedule find_failures run_schedule shrink"
    ),
    "managers": (
        "AllEvents AllocatedBlocks BlockRegistry CompletedBlocks EventPolicy EventsManager FrequencyTracker HeldBlocks "
        "InstancePopulation ManagerBuilder MultiInstancePopulator PowersOfTwo RegistryBuilder Tier TierManager "
        "TrackerSize populate_manager_with_blocks"
    ),
    "physical": (
        "FillPattern GuardBlocks LayoutBuilder LayoutConfig LayoutKind Mismatch PhysicalLayout Region StorageKind "
        "TransferChecksums copy_blocks create_guard_blocks create_layout fill_blocks open_region plan_copy "
        "standard_config storage_unavailable verify_guard_blocks_unchanged"
    ),
    "ports": "free_port free_ports",
    "processes": "HttpPort Index MockEngine Process Router as_flags stopping",
    "scheduler": (
        "EOS_TOKEN FailingExecutor Outcome RecordingLatency RefusingExecutor SchedulerBuilder ScriptedExecutor StepLog "
        "SteppedScheduler engine_config make_request prompt_tokens run_requests"
    ),
    "token_blocks": (
        "DEFAULT_BLOCK_SIZE DEFAULT_HASH_ALGORITHM TokenBlock TokenSequence create_disjoint_sequences "
        "create_sequential_block create_token_block create_token_sequence generate_sequence_hashes split_into_blocks"
    ),
    "transport": (
        "AsyncTransport Message Transport TransportBuilder create_async_transport create_async_transport_pair "
        "create_transport create_transport_pair"
    ),
    "waiting": "DeadlineError pause until wait_until",
}


def defined_names(module):
    """What a plain module itself defines without an underscore; what a package re-exports."""
    if hasattr(module, "__all__"):
        return set(module.__all__)
    names = set()
    for node in ast.parse(Path(module.__file__).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_those_pinned_here(name):
    module = importlib.import_module(f"kvsync_testkit.{name}")
    assert defined_names(module) == set(PUBLIC[name].split())
    for public in PUBLIC[name].split():
        assert getattr(module, public).__doc__ or not callable(getattr(module, public))


def test_nothing_in_the_kit_sleeps():
    """`waiting` polls, with a deadline; everything else waits for an event or for virtual time.

    The exceptions are a proxy whose purpose is to delay, and a stressor that is a script without imports of ours.
    """
    root = Path(kvsync_testkit.__file__).parent
    sleeping = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "sleep"
    }
    assert sleeping == {"waiting.py", "chaos/probe.py", "chaos/proxy.py"}
