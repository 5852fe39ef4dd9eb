"""Which data-parallel ranks run in a pod, and how its HTTP front end addresses them.

Event ports and batches carry global rank numbers. vLLM's front end counts differently: `X-data-parallel-rank` is the
position among the ranks that this front end manages, hence from 0 on every node under hybrid load balancing (vLLM,
`v1/engine/core_client.py`, `get_core_engine_for_request`; the modes are chosen in `engine/arg_utils.py`).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from kvsync_indexer.discovery.limits import MAX_RANKS, ArgumentsError


@dataclass(frozen=True, slots=True)
class Ranks:
    """The ranks `first` to `first + count - 1`."""

    count: int = 1
    first: int = 0
    front_end: bool = True
    """Whether the pod serves HTTP. A headless node does not; its ranks are served by the front end of another."""
    port_per_rank: bool = False
    """Whether each rank has an HTTP server of its own, on ports that count up."""


def vllm_ranks(counts: Mapping[str, int], switches: Collection[str]) -> Ranks:
    """The ranks by vLLM's flags, without their leading dashes. Raises ArgumentsError where vLLM would not start."""
    size, local = counts.get("data-parallel-size", 1), counts.get("data-parallel-size-local")
    rank, start = counts.get("data-parallel-rank"), counts.get("data-parallel-start-rank")
    front_end = "headless" not in switches
    if "data-parallel-multi-port-external-lb" in switches:
        if local is None:
            raise ArgumentsError("--data-parallel-multi-port-external-lb needs --data-parallel-size-local")
        first = start if start is not None else counts.get("node-rank", 0) * local
        return _checked(Ranks(local, first, front_end, port_per_rank=True))
    if "data-parallel-external-lb" in switches or rank is not None:
        return _checked(Ranks(1, _external_rank(rank, size, counts), front_end))
    if local is not None:
        first = start if start is not None else counts.get("node-rank", 0) * local
        return _checked(Ranks(local, first, front_end))
    if "data-parallel-hybrid-lb" in switches:
        raise ArgumentsError("--data-parallel-hybrid-lb needs --data-parallel-size-local")
    if counts.get("nnodes", 1) > 1 and (size > 1 or counts.get("node-rank", 0) > 0):
        raise ArgumentsError("--nnodes without --data-parallel-size-local does not tell which ranks run in this pod")
    return _checked(Ranks(size, 0, front_end))


def _external_rank(rank: int | None, size: int, counts: Mapping[str, int]) -> int:
    if counts.get("data-parallel-size-local", 1) != 1:
        raise ArgumentsError("an external data-parallel rank allows --data-parallel-size-local 1 only")
    if rank is not None:
        return rank
    nodes, node = counts.get("nnodes", 1), counts.get("node-rank")
    if node is None or nodes < size or nodes % size:
        raise ArgumentsError("--data-parallel-external-lb needs --data-parallel-rank")
    return node // (nodes // size)


def sglang_ranks(counts: Mapping[str, int]) -> Ranks:
    """The ranks by SGLang's flags. They are divided evenly among the nodes, and the first node serves HTTP."""
    size, nodes, node = counts.get("data-parallel-size", 1), counts.get("nnodes", 1), counts.get("node-rank", 0)
    if nodes > 1 and size % nodes:
        raise ArgumentsError(f"--dp-size {size} cannot be divided among {nodes} nodes")
    local = size // max(nodes, 1)
    return _checked(Ranks(local, node * local, node == 0))


def _checked(ranks: Ranks) -> Ranks:
    if not 1 <= ranks.count <= MAX_RANKS:
        raise ArgumentsError(
            f"the arguments give the pod {ranks.count} data-parallel ranks; 1 to {MAX_RANKS} are allowed"
        )
    return ranks
