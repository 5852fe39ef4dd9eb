"""From a pod to its publishers: one per rank, or the reason why there is none.

Annotations take precedence over container arguments, and those over labels. The defaults are the ones that AIBrix and
vLLM share: HTTP on port 8000, events on 5557 and replay on 5558. The identity of a publisher is made of the pod's UID,
the restart count of the engine's container, and the rank.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kvsync_events import EndpointError, publisher_binds, rank_endpoint
from kvsync_indexer.discovery.arguments import ArgumentsError, EngineArguments, read_arguments
from kvsync_indexer.publishers import PublisherSpec

ANNOTATIONS = "kvsync.dev"
MODEL_LABEL = "model.aibrix.ai/name"
PORT_LABEL = "model.aibrix.ai/port"
HTTP_PORT, EVENTS_PORT, REPLAY_PORT = 8000, 5557, 5558
MAX_RANKS = 1024
_PORT_OF = re.compile(r"^tcp://.*:(\d{1,5})$")

Pod = Mapping[str, Any]


class PodError(ValueError):
    """The pod cannot be followed; the message names the annotation or the flag."""


@dataclass(frozen=True, slots=True)
class EventsSource:
    """Where rank 0 of a pod publishes; `replay_port` is None without a replay server."""

    events_port: int
    replay_port: int | None
    topic: str | None


def pod_publishers(pod: Pod, *, qualified: bool) -> list[PublisherSpec]:
    """The publishers of a pod; none before it has an address and after it has ended. Raises PodError.

    With `qualified`, names contain the namespace, because pods of several namespaces are followed.
    """
    metadata, status = pod["metadata"], pod.get("status") or {}
    address = status.get("podIP")
    if not address or has_left(pod):
        return []
    notes = _annotations(metadata)
    container = _engine_container(pod, notes)
    try:
        arguments = read_arguments([*(container.get("command") or ()), *(container.get("args") or ())])
    except ArgumentsError as error:
        raise PodError(str(error)) from None
    source = _source(notes, arguments)
    ranks = _number(notes, "data-parallel-size", 1, MAX_RANKS) or arguments.ranks or 1
    first = _number(notes, "data-parallel-rank", 0, MAX_RANKS) or arguments.first_rank or 0
    if source.replay_port is not None and ranks > 1 and 0 <= source.replay_port - source.events_port < ranks:
        raise PodError(f"replay port {source.replay_port} is one of the event ports of {ranks} ranks")
    pod_name = f"{metadata['namespace']}/{metadata['name']}" if qualified else str(metadata["name"])
    host = f"[{address}]" if ":" in address else address
    labels = metadata.get("labels") or {}
    port = _number(notes, "http-port", 1, 65535) or arguments.port or _label_port(labels) or HTTP_PORT
    url = f"http://{host}:{port}"
    identity = f"{metadata['uid']}/{restart_count(status, container.get('name'))}"
    return [
        PublisherSpec(
            name=f"{pod_name}/{rank}" if ranks > 1 or first else pod_name,
            model=_model(notes, arguments, labels),
            endpoint=_endpoint(host, source.events_port, rank),
            pod=str(metadata["name"]),
            rank=rank,
            replay_endpoint=None if source.replay_port is None else _endpoint(host, source.replay_port, rank),
            topic=source.topic,
            epoch=f"{identity}/{rank}",
            debug_url=url if notes.get("debug", str(arguments.debug)).lower() == "true" else None,
            http_url=url,
            ready=is_ready(status),
            source="kubernetes",
        )
        for rank in range(first, first + ranks)
    ]


def has_left(pod: Pod) -> bool:
    """Whether the pod is being deleted or has ended, so that nothing must be routed to it."""
    phase = (pod.get("status") or {}).get("phase")
    return bool(pod["metadata"].get("deletionTimestamp")) or phase in ("Succeeded", "Failed")


def is_ready(status: Mapping[str, Any]) -> bool:
    """Whether the condition Ready is true."""
    conditions = status.get("conditions") or ()
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


def restart_count(status: Mapping[str, Any], container: str | None) -> int:
    """How often the engine's container was restarted."""
    for each in status.get("containerStatuses") or ():
        if each.get("name") == container:
            return int(each.get("restartCount") or 0)
    return 0


def _annotations(metadata: Mapping[str, Any]) -> dict[str, str]:
    prefix = f"{ANNOTATIONS}/"
    found = metadata.get("annotations") or {}
    return {name.removeprefix(prefix): str(value) for name, value in found.items() if name.startswith(prefix)}


def _engine_container(pod: Pod, notes: Mapping[str, str]) -> Mapping[str, Any]:
    """The container that an annotation names, else the one with an event configuration, else the first."""
    containers: list[Mapping[str, Any]] = list((pod.get("spec") or {}).get("containers") or ())
    if "container" in notes:
        for each in containers:
            if each.get("name") == notes["container"]:
                return each
        names = ", ".join(str(each.get("name")) for each in containers)
        raise PodError(f"annotation {ANNOTATIONS}/container {notes['container']!r}: the pod has {names}")
    for each in containers:
        words = [*(each.get("command") or ()), *(each.get("args") or ())]
        if any("kv-events-config" in str(word).replace("_", "-") for word in words):
            return each
    return containers[0] if containers else {}


def _source(notes: Mapping[str, str], arguments: EngineArguments) -> EventsSource:
    config = arguments.events
    events, replay, topic = EVENTS_PORT, REPLAY_PORT if config is None else None, notes.get("topic")
    noted = _number(notes, "events-port", 1, 65535)
    if config is not None and noted is None:
        if not config.get("enable_kv_cache_events", False) or config.get("publisher", "zmq") == "null":
            raise PodError("--kv-events-config does not enable events")
        endpoint = str(config.get("endpoint", f"tcp://*:{EVENTS_PORT}"))
        if not publisher_binds(endpoint):
            raise PodError(f"--kv-events-config endpoint {endpoint!r} connects; only publishers that bind can be found")
        events = _port(endpoint, "endpoint")
        if config.get("replay_endpoint"):
            replay = _port(str(config["replay_endpoint"]), "replay_endpoint")
        topic = topic if topic is not None else config.get("topic")
    replay = None if notes.get("replay-port") == "none" else _number(notes, "replay-port", 1, 65535) or replay
    return EventsSource(noted or events, replay, topic)


def _port(endpoint: str, field: str) -> int:
    match = _PORT_OF.match(endpoint)
    if match is None or not 0 < int(match[1]) <= 65535:
        raise PodError(f"--kv-events-config {field} {endpoint!r} names no port that can be reached from outside")
    return int(match[1])


def _endpoint(host: str, port: int, rank: int) -> str:
    try:
        return rank_endpoint(f"tcp://{host}:{port}", rank)
    except EndpointError as error:
        raise PodError(str(error)) from None


def _number(notes: Mapping[str, str], name: str, low: int, high: int) -> int | None:
    text = notes.get(name)
    if text is None or (name == "replay-port" and text == "none"):
        return None
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise PodError(f"annotation {ANNOTATIONS}/{name} {text!r} must be a number from {low} to {high}")
    return int(text)


def _label_port(labels: Mapping[str, str]) -> int | None:
    text = str(labels.get(PORT_LABEL, ""))
    return int(text) if text.isascii() and text.isdigit() and 0 < int(text) <= 65535 else None


def _model(notes: Mapping[str, str], arguments: EngineArguments, labels: Mapping[str, str]) -> str:
    named = (notes.get("model"), arguments.served_model_name, labels.get(MODEL_LABEL), arguments.model)
    for model in named:
        if model:
            return str(model)
    raise PodError(f"no model: set annotation {ANNOTATIONS}/model, label {MODEL_LABEL} or --served-model-name")
