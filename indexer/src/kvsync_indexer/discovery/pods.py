"""From a pod to its publishers: one per rank, or the reason why there is none.

Annotations take precedence over the engine's own list of event sources, that over container arguments, and those over
labels. The defaults are the ones that AIBrix and vLLM share: HTTP on port 8000, events on 5557 and replay on 5558; they
hold only if the arguments can be read. The identity of a publisher is made of the pod's UID, the restart count of the
engine's container, and the rank.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kvsync_events import CurveKeyError, EndpointError, publisher_binds, rank_endpoint
from kvsync_events.curve import check_key
from kvsync_indexer.api.prompts import uses_harmony
from kvsync_indexer.discovery.arguments import HTTP_PORTS, EngineArguments, read_arguments
from kvsync_indexer.discovery.command import engine_command
from kvsync_indexer.discovery.limits import MAX_PROBLEM, MAX_RANK, MAX_RANKS, ArgumentsError, number, quoted, text_of
from kvsync_indexer.discovery.podfields import (
    ANNOTATIONS,
    Pod,
    PodError,
    annotations,
    engine_container,
    has_left,
    is_ready,
    restart_count,
)
from kvsync_indexer.discovery.ranks import Ranks
from kvsync_indexer.discovery.sources import Sources, own_sources
from kvsync_indexer.publishers import PublisherSpec

MODEL_LABEL = "model.aibrix.ai/name"
PORT_LABEL = "model.aibrix.ai/port"
EVENTS_PORT, REPLAY_PORT = 5557, 5558
_PORT_OF = re.compile(r"^tcp://.*:(\d{1,5})$")


@dataclass(frozen=True, slots=True)
class _Stream:
    """The event stream of one rank."""

    rank: int
    http_rank: int
    events: str
    replay: str | None
    topic: str | None


class PodReading:
    """What the index needs of one pod that has an address. Raises PodError when it is made or asked."""

    def __init__(self, pod: Pod) -> None:
        self._metadata, self._status = pod["metadata"], pod.get("status") or {}
        self._notes = annotations(self._metadata)
        self._labels: Mapping[str, str] = self._metadata.get("labels") or {}
        container = engine_container(pod, self._notes)
        self.identity = f"{self._metadata['uid']}/{restart_count(self._status, container.get('name'))}"
        self._hidden: str | None = None
        self._arguments = EngineArguments()
        try:
            self._arguments = read_arguments(engine_command(container))
        except ArgumentsError as error:
            self._hidden = str(error)
        address = str(self._status["podIP"])
        self._addresses = {address, *(str(each.get("ip")) for each in self._status.get("podIPs") or ())}
        self._host = f"[{address}]" if ":" in address else address

    def question(self) -> str | None:
        """The URL of the engine if its event sources should be asked for, which annotations make needless."""
        if "events-port" in self._notes or not is_ready(self._status) or self._arguments.kind not in (None, "vllm"):
            return None
        ranks = self._arguments.ranks
        if not ranks.front_end or ranks.port_per_rank or (self._http_port_given() is None and self._opaque()):
            return None
        return self._url(0)

    def publishers(self, sources: Sources | None, *, qualified: bool) -> list[PublisherSpec]:
        """One publisher per rank. `sources` is the engine's own list, None if it is unknown."""
        streams = self._streams(sources)
        if self._http_port_given() is None and (reason := self._opaque()):
            raise PodError(reason)
        name = str(self._metadata["name"])
        prefix = f"{self._metadata['namespace']}/{name}" if qualified else name
        several = len(streams) > 1 or streams[0].rank > 0
        debug = self._notes.get("debug", str(self._arguments.debug)).lower() == "true"
        front_end = self._arguments.ranks.front_end
        model = self._model()
        harmony = uses_harmony(model) or uses_harmony(self._arguments.model or "")
        return [
            PublisherSpec(
                name=f"{prefix}/{stream.rank}" if several else prefix,
                model=model,
                endpoint=stream.events,
                pod=name,
                rank=stream.rank,
                replay_endpoint=stream.replay,
                topic=stream.topic,
                epoch=f"{self.identity}/{stream.rank}",
                debug_url=self._url(stream.http_rank) if debug and front_end else None,
                http_url=self._url(stream.http_rank) if front_end else None,
                http_rank=stream.http_rank,
                ready=is_ready(self._status),
                source="kubernetes",
                server_key=self._server_key(),
                chat_format="harmony" if harmony else "template",
                excludes_tools=self._arguments.excludes_tools,
            )
            for stream in streams
        ]

    def _opaque(self) -> str | None:
        """Why the arguments do not tell the ports, if so."""
        if self._hidden is not None:
            return self._hidden
        if self._arguments.file and (self._arguments.port is None or self._arguments.events is None):
            return "--config names a file, which may set the ports"
        return None

    def _streams(self, sources: Sources | None) -> list[_Stream]:
        noted = self._note_number("events-port", 1, 65535)
        if noted is None and sources is not None:
            return self._listed(sources)
        if noted is None and (reason := self._opaque()):
            raise PodError(f"{reason}; set annotation {ANNOTATIONS}/events-port and {ANNOTATIONS}/http-port")
        events, replay, topic = self._ports(noted)
        ranks = self._ranks()
        if replay is not None and abs(replay - events) < ranks.count and ranks.count > 1:
            raise PodError(f"replay port {replay} is one of the event ports of {ranks.count} ranks")
        return [
            _Stream(
                rank=ranks.first + at,
                http_rank=at,
                events=self._endpoint(events, ranks.first + at),
                replay=None if replay is None else self._endpoint(replay, ranks.first + at),
                topic=topic,
            )
            for at in range(ranks.count)
        ]

    def _listed(self, sources: Sources) -> list[_Stream]:
        try:
            own = own_sources(sources, self._addresses)
        except ArgumentsError as error:
            raise PodError(str(error)) from None
        ports = [port for each in own for port in (each.events_port, each.replay_port) if port is not None]
        if len(set(ports)) < len(ports):
            raise PodError("the engine's list of event sources names a port twice")
        topic = self._notes.get("topic")
        return [
            _Stream(
                rank=each.rank,
                http_rank=each.position,
                events=self._endpoint(each.events_port, 0),
                replay=None if each.replay_port is None else self._endpoint(each.replay_port, 0),
                topic=topic if topic is not None else each.topic,
            )
            for each in own
        ]

    def _ports(self, noted: int | None) -> tuple[int, int | None, str | None]:
        """(events port, replay port or None, topic) of rank 0, by annotations and arguments."""
        config, topic = self._arguments.events, self._notes.get("topic")
        events, replay = EVENTS_PORT, REPLAY_PORT if config is None else None
        if noted is None and config is None and self._arguments.kind in ("sglang", "trtllm"):
            raise PodError(
                f"the arguments of {self._arguments.kind} name no event port; set annotation {ANNOTATIONS}/events-port"
            )
        if config is not None and noted is None:
            events = _enabled_port(config, self._arguments.kind)
            if config.get("replay_endpoint"):
                replay = _port(config["replay_endpoint"], "replay_endpoint")
            topic = topic if topic is not None else config.get("topic")
        if self._notes.get("replay-port") == "none":
            replay = None
        else:
            replay = self._note_number("replay-port", 1, 65535) or replay
        return noted or events, replay, topic

    def _ranks(self) -> Ranks:
        count, first = (
            self._note_number("data-parallel-size", 1, MAX_RANKS),
            self._note_number("data-parallel-rank", 0, MAX_RANK),
        )
        told = self._arguments.ranks
        return Ranks(
            told.count if count is None else count,
            told.first if first is None else first,
            told.front_end,
            told.port_per_rank,
        )

    def _http_port_given(self) -> int | None:
        return self._note_number("http-port", 1, 65535) or self._arguments.port or _label_port(self._labels)

    def _url(self, http_rank: int) -> str:
        port = self._http_port_given() or HTTP_PORTS[self._arguments.kind]
        port += http_rank if self._arguments.ranks.port_per_rank else 0
        if port > 65535:
            raise PodError(f"HTTP port {port} of rank {http_rank} is larger than 65535")
        return f"http://{self._host}:{port}"

    def _endpoint(self, port: int, rank: int) -> str:
        try:
            return rank_endpoint(f"tcp://{self._host}:{port}", rank)
        except EndpointError as error:
            raise PodError(str(error)[:MAX_PROBLEM]) from None

    def _note_number(self, name: str, low: int, high: int) -> int | None:
        text = self._notes.get(name)
        if text is None:
            return None
        try:
            return number(f"annotation {ANNOTATIONS}/{name}", text, low, high)
        except ArgumentsError as error:
            raise PodError(str(error)) from None

    def _server_key(self) -> str | None:
        key = self._notes.get("curve-server-key")
        if key is None:
            return None
        try:
            return check_key(key)
        except CurveKeyError as error:
            raise PodError(f"annotation {ANNOTATIONS}/curve-server-key: {error}") from None

    def _model(self) -> str:
        named = (
            self._notes.get("model"),
            self._arguments.served_model_name,
            self._labels.get(MODEL_LABEL),
            self._arguments.model,
        )
        for model in named:
            if model:
                try:
                    return text_of("model", model)
                except ArgumentsError as error:
                    raise PodError(str(error)) from None
        raise PodError(f"no model: set annotation {ANNOTATIONS}/model, label {MODEL_LABEL} or --served-model-name")


def read_pod(pod: Pod) -> PodReading | None:
    """Read a pod; None before it has an address and after it has ended. Raises PodError."""
    if not (pod.get("status") or {}).get("podIP") or has_left(pod):
        return None
    return PodReading(pod)


def pod_publishers(pod: Pod, *, qualified: bool, sources: Sources | None = None) -> list[PublisherSpec]:
    """The publishers of a pod; none before it has an address and after it has ended. Raises PodError.

    With `qualified`, names contain the namespace, because pods of several namespaces are followed.
    """
    reading = read_pod(pod)
    return [] if reading is None else reading.publishers(sources, qualified=qualified)


def _enabled_port(config: Mapping[str, Any], kind: str | None) -> int:
    """The event port of an enabled configuration. SGLang's has no switch: naming the publisher enables events."""
    if kind == "sglang":
        enabled = config.get("publisher") == "zmq"
    else:
        enabled = config.get("enable_kv_cache_events", False) and (config.get("publisher") or "zmq") == "zmq"
    if not enabled:
        raise PodError("--kv-events-config does not enable events")
    endpoint = config.get("endpoint") or f"tcp://*:{EVENTS_PORT}"
    if not publisher_binds(endpoint):
        raise PodError(
            f"--kv-events-config endpoint {quoted(endpoint)} connects; only publishers that bind can be found"
        )
    return _port(endpoint, "endpoint")


def _port(endpoint: str, field: str) -> int:
    match = _PORT_OF.match(endpoint)
    if match is None or not 0 < int(match[1]) <= 65535:
        raise PodError(f"--kv-events-config {field} {quoted(endpoint)} names no port that can be reached from outside")
    return int(match[1])


def _label_port(labels: Mapping[str, str]) -> int | None:
    try:
        return number(PORT_LABEL, str(labels.get(PORT_LABEL, "")), 1, 65535)
    except ArgumentsError:
        return None
