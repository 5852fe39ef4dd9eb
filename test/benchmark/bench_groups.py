"""The groups of figures: the script of each, its arguments, and how its JSON becomes figures.

Targets hold for two cores and the native index core. Figures of the pure-Python core have no targets.
"""

from collections.abc import Sequence
from typing import Any

import bench_groups_engine
from bench_figures import Figure, Group

NATIVE = "native"


def native_target(value: float, core: str) -> float | None:
    """Return the target for the native core, and None for another core."""
    return value if core == NATIVE else None


INGEST = {(1, 1): 3.0, (1, 64): 3.0, (32, 1): 6.0, (512, 1): 8.0}
"""Targets in M blocks/s, by blocks per event and events per payload."""


def read_ingest(row: dict[str, Any], core: str, setting: str = "") -> Figure:
    """Read one row of ingest with its bare loop."""
    per_event, per_payload = row["blocks_an_event"], row["events_a_payload"]
    name = f"ingest, {per_event} block{'s' if per_event > 1 else ''} per event"
    name += f", {per_payload} events per payload" if per_payload > 1 else ""
    name += ", arrays" if row["form"] == "array" else ""
    drawn = per_payload == 1 and row["form"] == "map"
    return Figure(
        name + setting,
        row["m_blocks_s"]["apply"],
        "M blocks/s",
        "cpu",
        native_target(INGEST[per_event, per_payload], core),
        more_is_better=True,
        reference=row["m_blocks_s"].get("reference"),
        reference_name="two hash maps, same decoder",
        series=f"ingest by blocks per event{setting}" if drawn else "",
        at=per_event,
    )


def read_index(document: dict[str, Any], core: str) -> list[Figure]:
    """Read the output of `bench_index_core.py`."""
    figures = [read_ingest(row, core) for row in document["ingest"]]
    figures += [read_ingest(row, core, ", huge pages") for row in document.get("ingest_huge_pages", ())]
    figures += [
        Figure(f"removal, {row['blocks_an_event']} per event", row["m_blocks_s"], "M blocks/s", "cpu", None, True)
        for row in document["removal"]
    ]
    for row in document["lookup"]:
        shape = f"{row['blocks']:,} blocks, {row['publishers']} publisher{'s' if row['publishers'] > 1 else ''}"
        main = (row["blocks"], row["publishers"]) == (512, 64)
        for key, how, target in (("from_keys_us", "keys", 5.0), ("from_tokens_us", "tokens", 12.0)):
            figures.append(
                Figure(
                    f"match from {how}, {shape}", row[key], "µs", "cpu", native_target(target, core) if main else None
                )
            )
        if main:
            figures.append(Figure(f"miss, {shape}", row["miss_us"], "µs", "cpu", native_target(2.0, core)))
            figures.append(
                Figure(
                    f"match from tokens with every row read, {shape}", row["from_tokens_every_row_read_us"], "µs", "cpu"
                )
            )
    for row in document["memory"]:
        holders = row["holders"]
        figures.append(
            Figure(
                f"memory, {holders} holder{'s' if holders > 1 else ''}",
                row["bytes_a_pair"],
                "B per (publisher, block)",
                "memory",
                native_target({1: 64.0, 64: 32.0}[holders], core),
            )
        )
    churn = document["churn"]
    figures.append(Figure("store and evict in a full cache", churn["m_blocks_s"], "M blocks/s", "cpu", None, True))
    figures.append(
        Figure(
            "growth over that churn", churn["resident_growth_bytes"] / 2**20, "MiB", "memory", native_target(1.0, core)
        )
    )
    for row in document["publishers"]:
        count = row["publishers"]
        figures.append(
            Figure(
                f"match of 8,192 tokens among {count} publisher{'s' if count > 1 else ''}",
                row["from_tokens_us"],
                "µs",
                "cpu",
                series="match by publishers",
                at=count,
            )
        )
    return figures


def read_zmq(document: dict[str, Any], core: str) -> list[Figure]:
    """Read the output of `bench_service_zmq.py`: the index beside a bare receiver."""
    figures: list[Figure] = []
    name = "bare pyzmq receiver"
    for run, row in document["results"].items():
        bare = document["bare"][run]
        if run.startswith("flat_out_"):
            per = int(run.removeprefix("flat_out_"))
            target = {32: 2.5, 512: 5.0}.get(per)
            what = f"socket to visible, {per} per message"
            for key, title, unit, clock, least in (
                ("blocks_per_s", what, "M blocks/s", "wall", target and native_target(target, core)),
                ("blocks_per_cpu_s", f"{what}, CPU", "M blocks/CPU s", "cpu", None),
            ):
                figures.append(Figure(title, row[key] / 1e6, unit, clock, least, True, bare[key] / 1e6, name))
        else:
            rate = float(run.removeprefix("at_").removesuffix("_per_s"))
            for share in ("p50", "p99"):
                target = native_target(1.0, core) if share == "p99" else None
                what = f"event to visible at {rate:,.0f} events/s, {share}"
                value, arrival = row[f"visible_{share}_ms"], bare[f"arrival_{share}_ms"]
                figures.append(
                    Figure(what, value, "ms", "wall", target, reference=arrival, reference_name="arrival at a " + name)
                )
    lost = sum(row["missing_batches"] + row["gaps"] for row in document["results"].values())
    figures.append(Figure("batches lost, gaps", lost, "", "count", 0.0))
    return figures


def read_http(document: dict[str, Any], core: str) -> list[Figure]:
    """Read the output of `bench_service_http.py`: the index beside a bare server."""
    titles = {
        "match_8192_one_client": ("match of 8,192 tokens, one client", 250.0),
        "match_8192_limit_4": ("match of 8,192 tokens, one client, four rows", None),
        "match_512_four_clients": ("match of 512 tokens, four clients", 190.0),
    }
    figures: list[Figure] = []
    for name, row in document["results"].items():
        title, target = titles.get(name, (name.replace("_", " "), None))
        index, bare = row["index"], row["bare"]
        median_target = None if target is None else native_target(target, core)
        for key, what, unit, clock, least in (
            ("median_us", "median", "µs", "wall", median_target),
            ("p99_us", "p99", "µs", "wall", None),
            ("server_cpu_us", "server", "µs CPU", "cpu", None),
        ):
            figures.append(
                Figure(
                    f"{title}, {what}",
                    index[key],
                    unit,
                    clock,
                    least,
                    reference=bare[key],
                    reference_name="bare server",
                )
            )
    return figures


def read_publishers(document: dict[str, Any], core: str) -> list[Figure]:
    """Read the output of `bench_service_publishers.py`."""
    del core
    figures: list[Figure] = []
    for row in document["publishers"]:
        count = f"{row['publishers']} publisher{'s' if row['publishers'] > 1 else ''}"
        at = {"at": row["publishers"]}
        figures += [
            Figure(
                f"a batch of 32 blocks, {count}",
                row["cpu_us_per_batch"],
                "µs CPU",
                "cpu",
                series="CPU per batch by publishers",
                **at,
            ),
            Figure(f"event to visible, {count}, p50", row["visible_p50_ms"], "ms", "wall"),
            Figure(f"event to visible, {count}, p99", row["visible_p99_ms"], "ms", "wall"),
        ]
    last = document["publishers"][-1]
    figures.append(Figure(f"{last['publishers']} publishers live", last["live_s"], "s", "wall"))
    figures.append(
        Figure(f"memory per publisher, {last['publishers']} of them", last["resident_kib_each"], "KiB", "memory")
    )
    figures.append(Figure("gaps", sum(row["gaps"] for row in document["publishers"]), "", "count", 0.0))
    churn = document["churn"]
    times = f"{churn['cycles']} times {churn['publishers_each']} publishers come and go"
    figures += [
        Figure(f"{times}: memory growth", churn["resident_growth_kib"] / 1024, "MiB", "memory", 2.0),
        Figure(f"{times}: descriptors left", churn["descriptors_growth"], "", "count", 0.0),
        Figure(f"{times}: threads left", churn["threads_growth"], "", "count", 0.0),
        Figure(f"{times}: blocks left", churn["blocks_left"], "", "count", 0.0),
    ]
    return figures


def read_dynamo(document: dict[str, Any], core: str) -> list[Figure]:
    """Read the output of `bench_dynamo.py`: kvsync with Dynamo's figure of the same rounds as the reference."""
    del core
    return [
        Figure(
            row["name"],
            row["kvsync"],
            row["unit"],
            row["clock"],
            reference=row["dynamo"],
            reference_name=f"Dynamo {document['version']}",
            more_is_better=row["more_is_better"],
        )
        for row in document["rows"]
    ]


def _index(core: str, quick: bool) -> Sequence[str]:
    return ["--core", core, *(["--quick"] if quick else [])]


def _zmq(core: str, quick: bool) -> Sequence[str]:
    blocks = (1 << 20) // (4 if quick else 1) // (1 if core == NATIVE else 8)
    seconds = "2" if quick else "4"
    rate = "10000" if core == NATIVE else "2000"
    rounds = "1" if quick else "3"
    return ["--core", core, "--blocks", str(blocks), "--seconds", seconds, "--rate", rate, "--rounds", rounds]


def _http(core: str, quick: bool) -> Sequence[str]:
    requests = (200 if quick else 400) // (1 if core == NATIVE else 4)
    return ["--core", core, "--requests", str(requests), "--rounds", "2" if quick else "5"]


def _publishers(core: str, quick: bool) -> Sequence[str]:
    counts = ["1", "50"] if quick else ["1", "10", "64", "200", "500"]
    cycles = "30" if quick else "90"
    batches = "3000" if quick or core != NATIVE else "6000"
    return ["--core", core, "--counts", *counts, "--cycles", cycles, "--batches", batches]


def _dynamo(core: str, quick: bool) -> Sequence[str]:
    return ["--core", core, "--rounds", "1" if quick else "3", "--json", "-"]


GROUPS = {
    group.name: group
    for group in (
        Group("index", "Index core", "bench_index_core.py", read_index, _index),
        Group("zmq", "ZMQ end to end", "bench_service_zmq.py", read_zmq, _zmq),
        Group("http", "HTTP query", "bench_service_http.py", read_http, _http),
        Group(
            "publishers", "1 to 500 publishers, and churn", "bench_service_publishers.py", read_publishers, _publishers
        ),
        *bench_groups_engine.GROUPS,
        Group("dynamo", "NVIDIA Dynamo in the same run", "bench_dynamo.py", read_dynamo, _dynamo),
    )
}
