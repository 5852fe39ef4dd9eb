"""Probes of packets, processes and control groups: each asks the system, not the backend, whether a fault is there.

A probe is taken before the injection, when it must see both pairs healthy, and again during the fault.
"""

import json
import subprocess
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TypeAlias

from kvsync_testkit.chaos import cgroups
from kvsync_testkit.chaos.backend import Place
from kvsync_testkit.chaos.errors import CapabilityError
from kvsync_testkit.chaos.means import CONTROLLER_OF, PROBE
from kvsync_testkit.chaos.scene import Scene
from kvsync_testkit.chaos.verdicts import Observation
from kvsync_testkit.waiting import pause

Probe: TypeAlias = Callable[[Scene], Observation]


def cut_off(scene: Scene) -> Observation:
    """No connection from the index to any port of the engine."""
    results = {}
    for name in (scene.pair.affected, scene.pair.control):
        place = scene.before[name]
        ports = (place.http, place.events, place.replay)
        results[name] = [scene.from_index("connect", place.address, port)["result"] for port in ports]
    affected, control = results[scene.pair.affected], results[scene.pair.control]
    return Observation(set(affected) == {"timeout"}, set(control) != {"open"}, results)


def _one_port(scene: Scene, wanted: str) -> Observation:
    results = {}
    which = str(scene.fault.settings["port"])
    for name in (scene.pair.affected, scene.pair.control):
        place = scene.before[name]
        results[name] = {
            port: scene.from_index("connect", place.address, getattr(place, port))["result"]
            for port in ("http", "events", "replay")
        }
    affected, control = results[scene.pair.affected], results[scene.pair.control]
    others = [result for port, result in affected.items() if port != which]
    hit = affected[which] == wanted and set(others) == {"open"}
    detail: dict[str, object] = {scene.pair.affected: affected, scene.pair.control: control}
    return Observation(hit, set(control.values()) != {"open"}, detail)


def port_cut_off(scene: Scene) -> Observation:
    """One port of the engine does not answer the index, and the others do."""
    return _one_port(scene, "timeout")


def port_refuses(scene: Scene) -> Observation:
    """One port of the engine refuses the index, and the others do not."""
    return _one_port(scene, "refused")


def lossy(scene: Scene) -> Observation:
    """Connections from the index to the engine are not open before TCP asks a second time."""
    losses = {}
    for name in (scene.pair.affected, scene.pair.control):
        place = scene.before[name]
        knocks = scene.from_index("knock", place.address, place.http)
        losses[name] = round(1.0 - knocks["answered"] / knocks["sent"], 3)
    return Observation(losses[scene.pair.affected] >= 0.2, losses[scene.pair.control] > 0.05, losses)


def slow(scene: Scene) -> Observation:
    """The greeting of the event socket takes its time."""
    seconds = {}
    for name in (scene.pair.affected, scene.pair.control):
        host, port = scene.before[name].route
        seconds[name] = scene.from_index("greet", host, port)["seconds"]
    limit = 0.8 * float(scene.fault.settings["ms"]) / 1000.0
    affected, control = seconds[scene.pair.affected], seconds[scene.pair.control]
    return Observation(
        None if affected is None else affected >= limit, None if control is None else control >= limit, seconds
    )


def narrow(scene: Scene) -> Observation:
    """A transfer from the engine to the index is no faster than the limit, with its first burst."""
    limit = 1.6 * float(scene.fault.settings["bits"]) / 8
    speeds = {}
    for name in (scene.pair.affected, scene.pair.control):
        place = scene.before[name]
        speeds[name] = int(scene.from_index("fetch", place.address, place.http)["bytes_per_s"])
    return Observation(speeds[scene.pair.affected] < limit, speeds[scene.pair.control] < limit, speeds)


def _alive(pids: tuple[int, ...]) -> bool:
    return any(Path(f"/proc/{pid}").exists() and _state(pid) != "Z" for pid in pids)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "gone"


def _restarted(scene: Scene, name: str) -> bool | None:
    before, now = scene.before[name], scene.now(name)
    if not before.pids:
        return None
    if now is None or not now.pids:
        return None if not _alive(before.pids) else False
    return now.identity == before.identity and not _alive(before.pids) and now.pids != before.pids


def _undisturbed(scene: Scene, name: str) -> bool:
    now = scene.now(name)
    return now is not None and now.pids == scene.before[name].pids and _alive(now.pids)


def restarted(scene: Scene) -> Observation:
    """The old processes are dead, and others run under the same identity."""
    detail = {name: scene.now(name) for name in (scene.pair.affected, scene.pair.control)}
    return Observation(_restarted(scene, scene.pair.affected), not _undisturbed(scene, scene.pair.control), detail)


def index_restarted(scene: Scene) -> Observation:
    """The same for the index; the engines are the control."""
    detail = {"before": scene.before["index"].pids, "now": getattr(scene.now("index"), "pids", None)}
    return Observation(_restarted(scene, "index"), not _undisturbed(scene, scene.pair.control), detail)


def replaced(scene: Scene) -> Observation:
    """The old processes are dead, and their identity is gone."""
    before, now = scene.before[scene.pair.affected], scene.now(scene.pair.affected)
    gone = not _alive(before.pids) and (now is None or now.identity != before.identity)
    detail = {"before": before.identity, "now": now.identity if now else None}
    return Observation(gone if before.pids else None, not _undisturbed(scene, scene.pair.control), detail)


def down(scene: Scene) -> Observation:
    """The old processes are dead, and nothing listens at the engine's address."""
    before = scene.before[scene.pair.affected]
    result = scene.from_index("connect", before.address, before.http)["result"]
    control = scene.before[scene.pair.control]
    other = scene.from_index("connect", control.address, control.http)["result"]
    dead = result != "open" and not _alive(before.pids)
    undisturbed = other == "open" and _undisturbed(scene, scene.pair.control)
    return Observation(dead if before.pids else None, not undisturbed, {"affected": result, "control": other})


def hung(scene: Scene) -> Observation:
    """The processes are stopped, and the engine accepts connections but answers nothing."""
    states = {
        name: [_state(pid) for pid in scene.before[name].pids] for name in (scene.pair.affected, scene.pair.control)
    }
    answers = {name: _answers(scene, name) for name in states}
    affected, control = scene.pair.affected, scene.pair.control
    stopped = set(states[affected]) == {"T"} and not answers[affected]
    return Observation(
        stopped if states[affected] else None,
        "T" in states[control] or not answers[control],
        {**states, "http": answers},
    )


def _answers(scene: Scene, name: str, path: str = "/health") -> bool:
    try:
        return scene.backend.call(name, "GET", path, timeout_s=3.0).status == 200
    except OSError:
        return False


def starved(scene: Scene) -> Observation:
    """In the engine's control group a process wants the processor all the time.

    What the group gets says little on a busy machine, so the probe counts how often a process of it is ready to run.
    """
    names = (scene.pair.affected, scene.pair.control)
    pids = {name: scene.before[name].pids[0] for name in names if scene.before[name].pids}
    if len(pids) < len(names):
        return Observation(None, None, {"pids": pids})
    folders = {name: cgroups.group_of(pid, "cpu") for name, pid in pids.items()}
    waits = {name: cgroups.throttled(folder) for name, folder in folders.items()}
    ready = dict.fromkeys(names, 0)
    looks = 15
    for _ in range(looks):
        for name, folder in folders.items():
            ready[name] += any(_state(pid) == "R" for pid in cgroups.members(folder))
        pause(0.1)
    waits = {name: cgroups.throttled(folder) - waits[name] for name, folder in folders.items()}
    hit = {name: ready[name] >= 0.8 * looks for name in names}
    return Observation(hit[names[0]], hit[names[1]], {f"ready to run in {looks} looks": ready, "throttled": waits})


def crowded(scene: Scene) -> Observation:
    """The engine's control group uses more memory than before, by most of what was asked for."""
    names = (scene.pair.affected, scene.pair.control)
    try:
        used = {name: cgroups.memory_used(place.pids[0]) for name, place in scene.before.items() if name != "index"}
    except (CapabilityError, IndexError) as error:
        return Observation(None, None, {"error": str(error)})
    scene.memory = scene.memory or used  # of every engine, because a backend may choose another one at the injection
    grown = {name: used[name] - scene.memory[name] for name in names}
    wanted = int(scene.fault.settings["bytes"])
    return Observation(grown[names[0]] > 0.7 * wanted, grown[names[1]] > 0.3 * wanted, {"bytes more": grown})


def clock_off(scene: Scene) -> Observation:
    """The date in the engine's HTTP answers is off."""
    ahead = {}
    for name in (scene.pair.affected, scene.pair.control):
        date = scene.backend.call(name, "GET", "/health").headers.get("date")
        if date is None:
            return Observation(None, None, {"no date from": name})
        ahead[name] = round(parsedate_to_datetime(str(date)).timestamp() - time.time(), 1)
    limit = 0.5 * float(scene.fault.settings["seconds"])
    return Observation(abs(ahead[scene.pair.affected]) > limit, abs(ahead[scene.pair.control]) > limit, ahead)


def slow_files(scene: Scene) -> Observation:
    """A small file takes its time to reach the disk if it is written in the index's control group.

    The control is the same write in the control group of an engine.
    """
    index, engine = scene.now("index"), scene.now(scene.pair.control)
    if index is None or engine is None or not index.volume or not index.pids or not engine.pids:
        return Observation(None, None, {"no processes or no volume": [index, engine]})
    seconds = {place.name: _seconds_to_store(place, index.volume) for place in (index, engine)}
    limit = 0.5 / float(scene.fault.settings["operations"])
    return Observation(seconds[index.name] > limit, seconds[engine.name] > limit, {"seconds to write": seconds})


def _seconds_to_store(place: Place, folder: str) -> float:
    with subprocess.Popen(
        [*PROBE, "store", folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        cgroups.join(cgroups.group_of(place.pids[0], CONTROLLER_OF["io"]), process.pid)
        said, _ = process.communicate("go\n", timeout=40.0)
    return float(json.loads(said)["seconds"])


def operator_restarted(scene: Scene) -> Observation:
    """The operator's old process is dead, and another one runs in the same pod; no engine was touched."""
    detail = {"before": scene.before["operator"].pids, "now": getattr(scene.now("operator"), "pids", None)}
    return Observation(_restarted(scene, "operator"), not _undisturbed(scene, scene.pair.control), detail)


def api_silent(scene: Scene) -> Observation:
    """The API server accepts a connection and answers nothing; an engine answers as before."""
    answers = {"API server": _answers(scene, "api", "/readyz"), "engine": _answers(scene, scene.pair.control)}
    return Observation(not answers["API server"], not answers["engine"], {"answers": answers})
