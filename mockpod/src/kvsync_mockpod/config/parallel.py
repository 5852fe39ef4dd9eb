"""Which data-parallel ranks run in this pod, and which ranks a client may name, by the rules of `vllm serve`.

The rules are those of `EngineArgs.create_engine_config` (vllm/engine/arg_utils.py) and of `InputProcessor` (which
checks the rank of a request) in vLLM 0.32. Two of vLLM's conditions do not apply to a mock: that external load
balancing needs a mixture-of-experts model, and that ranks above 0 need a reachable rank 0.
"""

from dataclasses import dataclass

MAX_LOCAL_RANKS = 256


@dataclass(frozen=True, slots=True)
class ParallelFlags:
    """The data-parallel flags that decide, without their common prefix."""

    size: int
    size_local: int | None
    rank: int | None
    start_rank: int | None
    hybrid_lb: bool
    external_lb: bool


@dataclass(frozen=True, slots=True)
class RankPlan:
    """The ranks of one pod."""

    first: int
    """Global number of the first rank; its ports are the base ports plus this number."""
    count: int
    named: int
    """Clients may name the ranks 0 to `named - 1` by `X-data-parallel-rank`.

    They count from the pod's first rank if the pod serves its own ranks only (external and hybrid load balancing);
    otherwise they are global numbers.
    """

    @property
    def ranks(self) -> range:
        """Global numbers of the ranks."""
        return range(self.first, self.first + self.count)


def plan_ranks(flags: ParallelFlags) -> RankPlan:
    """The ranks that these flags put into the pod.

    Raises:
        ValueError: vLLM refuses this combination.
    """
    size, local = flags.size, flags.size_local
    if flags.hybrid_lb and flags.external_lb:
        raise ValueError("data_parallel_hybrid_lb and data_parallel_external_lb cannot be enabled together")
    if flags.external_lb or flags.rank is not None:
        if flags.rank is None:
            raise ValueError("data_parallel_external_lb requires data_parallel_rank")
        if local not in (1, None):
            raise ValueError(f"data_parallel_size_local: {local} refused; an external data-parallel rank requires 1")
        return _checked(RankPlan(flags.rank, 1, 1), size)
    if local is None:
        if flags.hybrid_lb:
            raise ValueError("data_parallel_hybrid_lb requires data_parallel_size_local")
        return _checked(RankPlan(0, size, size), size)
    if local > size:
        raise ValueError(f"data_parallel_size_local: {local} is more than data_parallel_size ({size})")
    start = flags.start_rank
    own_only = local < size and (flags.hybrid_lb or start is not None)
    return _checked(RankPlan(start or 0, local, local if own_only else size), size)


def _checked(plan: RankPlan, size: int) -> RankPlan:
    if plan.count > MAX_LOCAL_RANKS:
        raise ValueError(f"data_parallel_size: {plan.count} ranks in one pod; at most {MAX_LOCAL_RANKS} are allowed")
    if size > 1 and plan.ranks[-1] >= size:
        raise ValueError(f"data_parallel_size: {size} ranks do not include rank {plan.ranks[-1]} of this pod")
    return plan
