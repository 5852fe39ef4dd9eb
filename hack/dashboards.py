#!/usr/bin/env python3
"""Generate the chart's Grafana dashboards: `make docs`, and `--check` in `make verify`.

A dashboard is a list of panels, and a panel is a title, a unit and its queries. Everything else of Grafana's format is
the same for all of them. A test compares each query with the metrics that running processes export.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "charts/kvsync/dashboards"
WIDTH, HEIGHT = 12, 8
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
I, R, O = "kvsync_indexer", "kvsync_router", "kvsync_operator"  # noqa: E741 - used in many queries


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph: its queries by legend, and the unit as Grafana names it."""

    title: str
    queries: dict[str, str]
    unit: str = "short"
    note: str = ""


def p99(histogram: str, by: str = "") -> str:
    """The 99th percentile of a histogram over five minutes."""
    return f"histogram_quantile(0.99, sum by ({by + ', ' if by else ''}le) (rate({histogram}_bucket[5m])))"


def per_second(counter: str, by: str = "") -> str:
    """The rate of a counter over five minutes."""
    return f"sum{f' by ({by})' if by else ''} (rate({counter}[5m]))"


def in_15_minutes(counter: str, by: str = "") -> str:
    """The increase of a counter in a quarter of an hour."""
    return f"sum{f' by ({by})' if by else ''} (increase({counter}[15m]))"


INDEX = (
    Panel("Publishers by state", {"{{state}}": f"sum by (state) ({I}_publishers)"}),
    Panel("Lag in batches that are known and not applied", {"{{publisher}}": f"topk(20, {I}_sequence_lag)"}),
    Panel(
        "Delay of events, p99",
        {"until arrival": p99(f"{I}_event_arrival_seconds"), "until visible": p99(f"{I}_event_visible_seconds")},
        "s",
    ),
    Panel("Silence of publishers", {"{{publisher}}": f"topk(20, {I}_publisher_age_seconds)"}, "s"),
    Panel(
        "Events and received bytes per second",
        {"events": per_second(f"{I}_events_total"), "bytes": per_second(f"{I}_received_bytes_total")},
    ),
    Panel("Resident blocks", {"{{publisher}}": f"topk(20, {I}_publisher_blocks)"}),
    Panel(
        "Gaps, resyncs, restarts, quarantines (15 min)",
        {
            name: in_15_minutes(f"{I}_{name}_total")
            for name in ("gaps", "resyncs", "restarts", "truncations", "quarantines", "stales", "decode_errors")
        },
    ),
    Panel("Blocks that wait for their parent", {"{{publisher}}": f"topk(20, {I}_publisher_orphans)"}),
    Panel("Audits by verdict (15 min)", {"{{verdict}}": in_15_minutes(f"{I}_audits_total", "verdict")}),
    Panel(
        "Blocks that differ at the last audit",
        {
            "missing {{publisher}}": f"topk(20, {I}_audit_missing_blocks > 0)",
            "extra {{publisher}}": f"topk(20, {I}_audit_extra_blocks > 0)",
        },
    ),
    Panel(
        "Prediction error",
        {
            "false hits": f"{per_second(f'{I}_prediction_over_tokens_total')} / "
            f"{per_second(f'{I}_prediction_predicted_tokens_total')}",
            "missed hits": f"{per_second(f'{I}_prediction_under_tokens_total')} / "
            f"{per_second(f'{I}_prediction_cached_tokens_total')}",
        },
        "percentunit",
        "Share of predicted tokens that were not cached, and of cached tokens that were not predicted.",
    ),
    Panel("Duration of matches, p99", {"p99": p99(f"{I}_match_seconds")}, "s"),
    Panel(
        "Matches per second",
        {"all": per_second(f"{I}_match_seconds_count"), "refused": per_second(f"{I}_match_refused_total")},
    ),
    Panel("Memory", {"process": "process_resident_memory_bytes", "core, estimated": f"{I}_core_bytes"}, "bytes"),
    Panel(
        "Snapshots (15 min)",
        {"written": in_15_minutes(f"{I}_snapshots_total"), "failed": in_15_minutes(f"{I}_snapshot_failures_total")},
    ),
)

ROUTER = (
    Panel("Requests per second by outcome", {"{{outcome}}": per_second(f"{R}_requests_total", "outcome")}),
    Panel(
        "Hits in tokens per second",
        {
            "available": per_second(f"{R}_available_tokens_total"),
            "chosen": per_second(f"{R}_chosen_tokens_total"),
            "reported": per_second(f"{R}_reported_tokens_total"),
        },
        note="The longest hit on any endpoint, the hit on the chosen one, and what its engine found.",
    ),
    Panel(
        "Regret by cause, in relation to what was available",
        {
            "{{cause}}": f"{per_second(f'{R}_regret_tokens_total', 'cause')} / ignoring (cause) group_left () "
            f"{per_second(f'{R}_available_tokens_total')}"
        },
        "percentunit",
        "load: another endpoint was cheaper. staleness: the index did not know. prediction: the hit was gone.",
    ),
    Panel(
        "Matched share of prompt tokens",
        {"matched": f"{per_second(f'{R}_matched_tokens_total')} / {per_second(f'{R}_prompt_tokens_total')}"},
        "percentunit",
    ),
    Panel(
        "Decisions without the index, retries, unresolved requests per second",
        {
            "without the index": per_second(f"{R}_fallbacks_total"),
            "retries": per_second(f"{R}_retries_total"),
            "unresolved": per_second(f"{R}_unresolved_requests_total"),
        },
    ),
    Panel("Predictions by outcome per second", {"{{outcome}}": per_second(f"{R}_predictions_total", "outcome")}),
    Panel("Time to decide, p99", {"p99": p99(f"{R}_decision_seconds")}, "s"),
    Panel("Time to first byte, p99", {"p99": p99(f"{R}_first_byte_seconds")}, "s"),
    Panel(
        "Endpoints",
        {"in the rotation": f"sum ({R}_endpoint_up)", "out of it": f"count ({R}_endpoint_up == 0)"},
    ),
    Panel("Requests in flight", {"{{endpoint}}": f"topk(20, {R}_endpoint_inflight_requests)"}),
    Panel("Prompt tokens still to compute", {"{{endpoint}}": f"topk(20, {R}_endpoint_inflight_prefill_tokens)"}),
)

ENGINES = (
    Panel(
        "Running and waiting requests",
        {
            "running {{model_name}}": "sum by (model_name) (vllm:num_requests_running)",
            "waiting {{model_name}}": "sum by (model_name) (vllm:num_requests_waiting)",
        },
    ),
    Panel("KV cache usage", {"{{model_name}}": "avg by (model_name) (vllm:kv_cache_usage_perc)"}, "percentunit"),
    Panel(
        "Prefix hit ratio",
        {
            "{{model_name}}": f"{per_second('vllm:prefix_cache_hits_total', 'model_name')} / "
            f"{per_second('vllm:prefix_cache_queries_total', 'model_name')}"
        },
        "percentunit",
    ),
    Panel("Time to first token, p99", {"{{model_name}}": p99("vllm:time_to_first_token_seconds", "model_name")}, "s"),
    Panel("Inter-token latency, p99", {"{{model_name}}": p99("vllm:inter_token_latency_seconds", "model_name")}, "s"),
    Panel("Preemptions per second", {"{{model_name}}": per_second("vllm:num_preemptions_total", "model_name")}),
    Panel(
        "Tokens per second",
        {
            "prompt {{model_name}}": per_second("vllm:prompt_tokens_total", "model_name"),
            "generated {{model_name}}": per_second("vllm:generation_tokens_total", "model_name"),
        },
    ),
    Panel(
        "Mock engines: event batches and replays per second",
        {
            "batches": per_second("kvsync_mockpod_event_batches_total"),
            "batches sent again": per_second("kvsync_mockpod_replay_batches_total"),
            "replay requests refused": per_second("kvsync_mockpod_replay_refused_total"),
        },
    ),
)

OPERATOR = (
    Panel("Custom resources by readiness", {"{{kind}} {{ready}}": f"sum by (kind, ready) ({O}_resources)"}),
    Panel("Reconcile passes per second", {"{{kind}} {{result}}": per_second(f"{O}_passes_total", "kind, result")}),
    Panel("Duration of reconcile passes, p99", {"{{kind}}": p99(f"{O}_pass_seconds", "kind")}, "s"),
    Panel(
        "Repairs and failed API requests",
        {
            "repairs (15 min)": in_15_minutes(f"{O}_repairs_total"),
            "{{method}} {{result}}": f'sum by (method, result) (rate({O}_api_requests_total{{result!="ok"}}[5m]))',
        },
    ),
    Panel("Silent watches", {"{{kind}}": f"{O}_watch_silent"}),
    Panel("Objects applied per second", {"{{kind}}": per_second(f"{O}_objects_applied_total", "kind")}),
)

DASHBOARDS = {"index": INDEX, "router": ROUTER, "engines": ENGINES, "operator": OPERATOR}


def build(name: str, panels: tuple[Panel, ...]) -> dict[str, Any]:
    """The dashboard in Grafana's format."""
    return {
        "title": f"kvsync {name}",
        "uid": f"kvsync-{name}",
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "tags": ["kvsync"],
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "timezone": "",
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "type": "datasource",
                    "query": "prometheus",
                    "label": "Data source",
                    "current": {},
                }
            ]
        },
        "annotations": {"list": []},
        "panels": [_build_panel(number, panel) for number, panel in enumerate(panels)],
    }


def _build_panel(number: int, panel: Panel) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + at), "expr": query, "legendFormat": legend}
        for at, (legend, query) in enumerate(panel.queries.items())
    ]
    return {
        "id": number + 1,
        "title": panel.title,
        "description": panel.note,
        "type": "timeseries",
        "datasource": DATASOURCE,
        "gridPos": {"x": WIDTH * (number % 2), "y": HEIGHT * (number // 2), "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": targets,
    }


def main(arguments: list[str]) -> int:
    """Write the dashboards, or with `--check` compare them. Returns the exit code."""
    texts = {
        FOLDER / f"kvsync-{name}.json": json.dumps(build(name, panels), indent=1) + "\n"
        for name, panels in DASHBOARDS.items()
    }
    if "--check" not in arguments:
        for path, text in texts.items():
            path.write_text(text)
        return 0
    different = [path for path, text in texts.items() if not path.exists() or path.read_text() != text]
    different += [path for path in FOLDER.glob("*.json") if path not in texts]
    for path in different:
        print(f"{path.name} differs from hack/dashboards.py: run `make docs`")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
