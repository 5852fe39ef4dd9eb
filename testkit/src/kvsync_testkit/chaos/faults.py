"""The table of faults: what each one breaks, which invariants hold nevertheless, and how it is proved.

A fault is data. The backends choose the means from `kind` and `settings`, and the runner takes every bound from here.
One table describes the experiment on network namespaces, on a cluster, and under Chaos Mesh.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Kind: TypeAlias = Literal[
    "partition", "port_blocked", "port_refused", "loss", "delay", "bandwidth", "kill", "replace", "failure",
    "index_kill", "stop", "cpu", "memory", "io", "clock", "plane", "reset", "operator_kill", "api_outage",
]  # fmt: skip
Scope: TypeAlias = Literal["network", "pods", "events"]

CORE = ("I1", "I2", "I3", "I4", "I5", "I8", "I9", "I11", "I12", "I13")
"""What an index keeps through every fault after which replay reaches back."""
WITHOUT_HISTORY = ("I2", "I4", "I5", "I8", "I9", "I11", "I12", "I13")
"""What it keeps where batches are lost for good: it never says more than is true."""

REPLAYED_S = 5.0
RESTARTED_S = 30.0


@dataclass(frozen=True)
class Fault:
    """One row of the table."""

    name: str
    scope: Scope
    kind: Kind
    breaks: str
    """What is broken, in words for the report."""
    probe: str
    """The probe that proves it; a function of `kvsync_testkit.chaos.probes`."""
    keeps: tuple[str, ...] = CORE
    settings: Mapping[str, Any] = field(default_factory=dict)
    recovery_s: float = REPLAYED_S
    hold_s: float = 8.0
    """How long the fault stays, in seconds, after it was proved."""
    silences: bool = False
    """The index hears nothing of the engine while the fault is in place."""
    lasting: bool = True
    """There is something to heal. Otherwise the fault is an instant, such as a kill."""
    buffer_steps: int = 10_000
    """Batches that the engines keep for replay."""
    tiers: bool = False
    """The engines have a host tier behind the device cache."""
    undetectable: bool = False
    """No index can notice it from the events; the audit must say that the tables differ."""
    shows: tuple[str, ...] = ()
    """Counters of the index, of which at least one must rise: the fault must not only be survived but be reported."""
    cluster_only: bool = False
    """Processes without a cluster have nothing of what it breaks."""
    smoke: bool = False


def _plane(name: str, breaks: str, *rules: Mapping[str, Any], probe: str = "", **fields: Any) -> Fault:  # noqa: ANN401
    settings = {"rules": rules}
    probe = probe or str(rules[0]["kind"])
    return Fault(f"events-{name}", "events", "plane", breaks, probe, settings=settings, **fields)


def _often(kind: str, **fields: object) -> dict[str, object]:
    return {"kind": kind, "rate": 0.3, **fields}


_NETWORK = (
    Fault(
        "partition", "network", "partition", "no packet passes between one engine and the index, both ways",
        "cut_off", silences=True, hold_s=20.0, smoke=True,
    ),
    Fault(
        "partition-beyond-retention", "network", "partition", "the same, for longer than the replay buffer reaches",
        "cut_off", WITHOUT_HISTORY, silences=True, buffer_steps=6,
        shows=("truncations", "resyncs"),
    ),
    Fault(
        "loss-50", "network", "loss", "half of the packets from one engine are lost where the index receives them",
        "lossy", settings={"percent": 50}, recovery_s=RESTARTED_S,
    ),
    Fault(
        "delay-500ms", "network", "delay", "each direction between one engine and the index takes 500 ms longer",
        "slow", settings={"ms": 500}, smoke=True,
    ),
    Fault(
        "bandwidth-1mbit", "network", "bandwidth", "one engine sends at most 1 Mbit/s",
        "narrow", settings={"bits": 1_000_000},
    ),
)  # fmt: skip

_PODS = (
    Fault(
        "pod-kill", "pods", "replace", "one engine is deleted, and another one with a new identity takes its place",
        "replaced", (*CORE, "I6", "I10"), recovery_s=RESTARTED_S, hold_s=8.0, lasting=False, smoke=True,
    ),
    Fault(
        "pod-failure", "pods", "failure", "one engine is down for the duration, with its address and name kept",
        "down", (*CORE, "I6"), recovery_s=RESTARTED_S, silences=True,
    ),
    Fault(
        "container-kill", "pods", "kill", "the process of one engine is killed and started again at the same address",
        "restarted", (*CORE, "I6"), recovery_s=RESTARTED_S, hold_s=4.0, lasting=False, smoke=True,
    ),
    Fault(
        "index-kill", "pods", "index_kill", "the index is killed and started again", "index_restarted",
        tuple(one for one in CORE if one not in ("I5", "I12")), recovery_s=RESTARTED_S, hold_s=4.0, lasting=False,
    ),
    Fault("hang", "pods", "stop", "the processes of one engine are stopped (SIGSTOP)", "hung", silences=True),
    Fault(
        "cpu-stress", "pods", "cpu", "one engine competes for a tenth of a processor", "starved",
        settings={"share": 0.1, "workers": 2},
    ),
    Fault(
        "memory-stress", "pods", "memory", "128 MiB more are in use beside one engine", "crowded",
        settings={"bytes": 128 << 20},
    ),
    Fault(
        "io-delay", "pods", "io", "the device of the index's snapshot volume performs ten operations per second for it",
        "slow_files", settings={"operations": 10}, hold_s=32.0,
    ),
    Fault(
        "operator-kill", "pods", "operator_kill", "the operator is killed while it adds an engine",
        "operator_restarted", recovery_s=RESTARTED_S, hold_s=4.0, lasting=False, cluster_only=True, smoke=True,
    ),
    Fault(
        "api-outage", "pods", "api_outage", "the API server is stopped (SIGSTOP) and answers nothing", "api_silent",
        recovery_s=RESTARTED_S, hold_s=15.0, cluster_only=True, smoke=True,
    ),
)  # fmt: skip

_EVENTS = (
    Fault(
        "events-port-blocked", "events", "port_blocked", "port 5557 of one engine is blocked, its other ports are not",
        "port_cut_off", settings={"port": "events"}, silences=True, smoke=True,
    ),
    Fault(
        "replay-port-blocked", "events", "port_blocked", "port 5558 of one engine is blocked, and a batch is lost",
        "port_cut_off", settings={"port": "replay", "rules": ({"kind": "drop", "rate": 0.3, "limit": 2},)},
        recovery_s=RESTARTED_S, shows=("replay_failures",),
    ),
    Fault(
        "events-port-refused", "events", "port_refused", "port 5557 of one engine answers with TCP resets",
        "port_refuses", settings={"port": "events"}, silences=True,
    ),
    Fault(
        "clock-skew", "events", "clock", "the wall clock of one engine is ten minutes ahead", "clock_off",
        settings={"seconds": 600},
    ),
    Fault(
        "cache-reset", "events", "reset", "the cache of one engine is reset, and some of its batches are never sent",
        "emptied", (*CORE, "I7"), settings={"rules": ({"kind": "drop", "rate": 0.3},)},
    ),
    # So many bytes that no batch can still be decoded: one byte may be that of a hash, which nobody can notice.
    _plane("corrupted", "64 bytes of some batches of one engine are changed", _often("corrupt", limit=2, count=64),
           shows=("decode_errors", "quarantines", "gaps", "replays"), smoke=True),
    _plane("duplicated", "some batches of one engine are sent twice", _often("duplicate"), shows=("duplicates",),
           smoke=True),
    _plane("dropped", "some numbered batches of one engine are never sent", _often("drop"), shows=("gaps",),
           smoke=True),
    _plane(
        "dropped-unnumbered", "some batches of one engine vanish before they have a number", _often("drop_unnumbered"),
        keeps=("I4", "I5", "I11", "I12", "I13"), undetectable=True,
    ),
    _plane("reordered", "some batches of one engine are sent after later ones", _often("reorder", window=3)),
    _plane("delayed", "some batches of one engine leave 700 ms late, in order", _often("delay", ms=700)),
    _plane("truncated", "some batches of one engine are cut in half", _often("truncate", limit=2)),
    _plane("oversized", "some batches of one engine are 4 MiB large", _often("oversize", size=4 << 20, limit=2)),
    _plane("wrong-parent", "stored events of one engine name parents that do not exist",
           _often("wrong_parent", limit=2),
           recovery_s=RESTARTED_S),
    _plane("restarted-at-zero", "the publisher of one engine starts again with sequence number 0", {"kind": "restart"},
           keeps=(*CORE, "I6")),
    _plane("restart-overtakes",
           "one engine restarts, and its new publisher has overtaken the old number before anyone can connect",
           {"kind": "restart", "ahead": 5}, probe="overtaken", keeps=(*CORE, "I6"), recovery_s=RESTARTED_S,
           shows=("restarts",)),
    _plane("replay-lying", "batches are lost, and replay sends the newest batch first",
           {"kind": "replay_lie", "about": "order"}, _often("drop", limit=2), recovery_s=RESTARTED_S,
           shows=("replay_lies", "replay_failures")),
    _plane("replay-denying", "batches are lost, and replay ends at once as if there had been none",
           {"kind": "replay_lie", "about": "end"}, _often("drop", limit=2), recovery_s=RESTARTED_S,
           shows=("replay_lies", "replay_failures")),
    _plane(
        "replay-forging", "batches are lost, and each replay reply has the payload of another batch",
        {"kind": "replay_lie", "about": "payload"}, _often("drop", limit=2),
        keeps=("I4", "I11", "I12", "I13"), undetectable=True,
    ),
    _plane("replay-silent", "batches are lost, and replay never answers", {"kind": "replay_silent"},
           _often("drop", limit=2), recovery_s=RESTARTED_S),
    _plane("replay-slow", "batches are lost, and each replay reply takes 300 ms", {"kind": "replay_slow", "ms": 300},
           _often("drop", limit=2)),
    _plane("replay-truncated", "batches are lost, and replay ends without its last replies",
           {"kind": "replay_truncate", "replies": 1, "marker": True}, _often("drop", limit=2), recovery_s=RESTARTED_S),
)  # fmt: skip


def _with_tiers(fault: Fault) -> Fault:
    fields = {name: getattr(fault, name) for name in fault.__dataclass_fields__}
    breaks = f"{fault.breaks}; engines with a host tier"
    return Fault(**fields | {"name": f"{fault.name}-tiers", "breaks": breaks, "tiers": True, "smoke": False})


FAULTS: tuple[Fault, ...] = (
    *_NETWORK, *_PODS, *_EVENTS, *(_with_tiers(one) for one in _EVENTS if one.kind in ("plane", "reset")),
)  # fmt: skip


def choose_faults(names: str) -> list[Fault]:
    """Return the faults of a comma-separated list of names, scopes, `all` and `smoke`, in the order of the table.

    Raises:
        ValueError: a name is unknown.
    """
    wanted = {name.strip() for name in names.split(",") if name.strip()}
    unknown = wanted - {"all", "smoke", "network", "pods", "events"} - {one.name for one in FAULTS}
    if unknown:
        known = ", ".join(one.name for one in FAULTS)
        raise ValueError(
            f"unknown faults {', '.join(sorted(unknown))}; known: all, smoke, network, pods, events, {known}"
        )
    return [
        one
        for one in FAULTS
        if "all" in wanted or one.name in wanted or one.scope in wanted or (one.smoke and "smoke" in wanted)
    ]
