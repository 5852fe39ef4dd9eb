"""The endpoints of every rank of a pod, checked for overlap before any socket is opened.

vLLM adds the rank to both TCP ports. With several ranks and adjacent base ports, the publisher of rank 1 gets the
replay port of rank 0. Such a configuration is refused here.
"""

from dataclasses import dataclass

from kvsync_events import EventsError, publisher_binds, rank_endpoint
from kvsync_mockpod.config import PodConfig
from kvsync_mockpod.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RankEndpoints:
    """Where one rank publishes and serves replay; None where it does not."""

    rank: int
    publish: str | None
    replay: str | None


def plan_endpoints(config: PodConfig) -> list[RankEndpoints]:
    """The endpoints of the ranks that run in this pod.

    Raises:
        ConfigError: an endpoint cannot serve its rank, or two endpoints need the same local port.
    """
    events = config.events
    ranks = config.rank_plan.ranks
    if not events.publishes:
        return [RankEndpoints(rank, None, None) for rank in ranks]
    planned = [
        RankEndpoints(
            rank, _of_rank("endpoint", events.endpoint, rank), _of_rank("replay_endpoint", events.replay_endpoint, rank)
        )
        for rank in ranks
    ]
    _refuse_overlap(config, planned)
    return planned


def _of_rank(field: str, endpoint: str | None, rank: int) -> str | None:
    if endpoint is None:
        return None
    transport, found, address = endpoint.partition("://")
    if not found or transport not in ("tcp", "ipc", "inproc") or not address:
        raise ConfigError(
            f"kv_events_config.{field}: {endpoint!r} is not tcp://ADDRESS:PORT, ipc://PATH or inproc://NAME"
        )
    if transport == "tcp" and _port(endpoint) is None:
        raise ConfigError(f"kv_events_config.{field}: {endpoint!r} does not end in a port from 0 to 65535")
    try:
        return rank_endpoint(endpoint, rank)
    except EventsError as error:
        raise ConfigError(f"kv_events_config.{field}: {error}") from None


def _port(endpoint: str | None) -> int | None:
    if endpoint is None or not endpoint.startswith("tcp://"):
        return None
    port = endpoint.rpartition(":")[2]
    if not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        return None
    return int(port)


def _refuse_overlap(config: PodConfig, planned: list[RankEndpoints]) -> None:
    taken: dict[str | int, str] = {}
    if config.port:
        taken[config.port] = "the HTTP port"
    for row in planned:
        for purpose, endpoint in (("events", row.publish), ("replay", row.replay)):
            if endpoint is None or (purpose == "events" and not publisher_binds(endpoint)):
                continue
            key = _port(endpoint) if endpoint.startswith("tcp://") else endpoint
            if key is None or key == 0:
                continue
            mine = f"{purpose} of rank {row.rank}"
            if key in taken:
                where = f"port {key}" if isinstance(key, int) else key
                raise ConfigError(
                    f"kv_events_config: {mine} and {taken[key]} both need {where}; set replay_endpoint apart from "
                    f"endpoint by at least the number of ranks ({config.rank_plan.count})"
                )
            taken[key] = mine
