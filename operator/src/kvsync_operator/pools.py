"""Reads, applies and deletes InferencePools, of which the API server may not know the kind.

They are neither watched nor cached: a pass reads the one or two pools that concern its PrefixIndex.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kvsync_operator import names
from kvsync_operator.client import KubeClient
from kvsync_operator.errors import ApiError, NotFoundError
from kvsync_operator.reconcile import Plan, PoolReport, Problem, pool_references, reference_of


async def read_pools(client: KubeClient, document: Mapping[str, Any]) -> PoolReport | None:
    """Read the pools that concern a PrefixIndex; None if none does."""
    references = pool_references(document)
    if not references:
        return None
    try:
        found = [await client.get(reference) for reference in references]
        live = tuple(pool for pool in found if pool is not None)
        installed = bool(live) or names.POOL in await client.served_kinds(names.POOL_API_VERSION)
    except ApiError as error:
        return PoolReport(problem=Problem("PoolUnreadable", f"the InferencePool cannot be read: {error}"))
    return PoolReport(live, installed)


async def change_pools(client: KubeClient, plan: Plan, report: PoolReport) -> PoolReport:
    """Apply and delete the pools of a plan, and return what there is then."""
    live = {reference_of(pool): pool for pool in report.live}
    try:
        if plan.pool is not None:
            live[reference_of(plan.pool)] = await client.apply(plan.pool)
        for reference in plan.prune_pools:
            await client.delete(reference)
            live.pop(reference, None)
    except NotFoundError:
        return replace(report, installed=False)
    except ApiError as error:
        return replace(report, problem=Problem("PoolRefused", f"the InferencePool cannot be changed: {error}"))
    return replace(report, live=tuple(live.values()))
