"""The groups of figures of the mock engine."""

from collections.abc import Sequence
from typing import Any

from bench_figures import Figure, Group


def read_streaming(document: dict[str, Any], core: str) -> list[Figure]:
    """Read the output of `bench_mockpod_streaming.py`."""
    del core
    pod, reference = document["pod"], document["reference"]
    name = "streaming completions of 16 tokens"
    return [
        Figure(name, pod["per_s"], "/s", "wall", 1000.0, True, reference["per_s"], "bare server stack"),
        Figure(
            f"{name}, CPU", pod["per_cpu_s"], "/CPU s", "cpu", None, True, reference["per_cpu_s"], "bare server stack"
        ),
        Figure("resident, idle", document["rss_mib"]["idle"], "MiB", "memory", 60.0),
        Figure("resident, loaded", document["rss_mib"]["loaded"], "MiB", "memory"),
    ]


def read_pod_churn(document: dict[str, Any], core: str) -> list[Figure]:
    """Read the output of `bench_mockpod_churn.py`."""
    del core
    figures: list[Figure] = []
    reference = document["reference"]
    for cache, row in document["caches"].items():
        name = f"blocks stored, as many removed, cache of {int(cache):,}"
        figures += [
            Figure(
                name, row["blocks_per_s"], "/s", "wall", 28_000.0, True, reference["blocks_per_s"], "bare server stack"
            ),
            Figure(f"{name}, CPU", row["blocks_per_cpu_s"], "/CPU s", "cpu", None, True),
        ]
    return figures


def read_replay(document: dict[str, Any], core: str) -> list[Figure]:
    """Read the output of `bench_mockpod_replay.py`."""
    del core
    figures: list[Figure] = []
    for row in document["replay"]:
        workers = f"{row['workers']} worker{'s' if row['workers'] > 1 else ''}"
        target = 1500.0 if row["workers"] == 1 else None
        figures.append(
            Figure(
                f"replay, {workers}, {row['policy']}",
                row["requests_per_cpu_s"],
                "requests/CPU s",
                "cpu",
                target,
                True,
                series=f"replay, {row['policy']}, by workers",
                at=row["workers"],
            )
        )
    return figures


def read_tier_link(document: dict[str, Any], core: str) -> list[Figure]:
    """Read the output of `bench_tier_link.py`."""
    del core
    return [
        Figure(
            f"completion of a transfer, {row['transfers']:,} on the link",
            row["link_us"],
            "µs CPU",
            "cpu",
            reference=row["heap_us"],
            reference_name="bare heap",
            series="completion of a transfer by transfers on the link",
            at=row["transfers"],
        )
        for row in document["rows"]
    ]


def _streaming(core: str, quick: bool) -> Sequence[str]:
    del core
    return ["--rounds", "2", "--requests", "500"] if quick else ["--rounds", "3", "--requests", "2000"]


def _pod_churn(core: str, quick: bool) -> Sequence[str]:
    del core
    return ["--rounds", "2", "--requests", "200", "--blocks", "1024"] if quick else ["--rounds", "3"]


def _replay(core: str, quick: bool) -> Sequence[str]:
    if quick:
        return ["--core", core, "--requests", "500", "--workers", "1", "4", "--rounds", "1"]
    return ["--core", core, "--rounds", "2"]


def _tier_link(core: str, quick: bool) -> Sequence[str]:
    del core
    return ["--json", "-", "--rounds", "2" if quick else "5", *(["--sizes", "10", "1000"] if quick else [])]


GROUPS = (
    Group("streaming", "Mock engine: streaming", "bench_mockpod_streaming.py", read_streaming, _streaming),
    Group("pod-churn", "Mock engine: cache churn", "bench_mockpod_churn.py", read_pod_churn, _pod_churn),
    Group("replay", "Mock engine: offline replay", "bench_mockpod_replay.py", read_replay, _replay),
    Group("tier-link", "Mock engine: transfers between tiers", "bench_tier_link.py", read_tier_link, _tier_link),
)
