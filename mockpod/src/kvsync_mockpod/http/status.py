"""Endpoints that report on the pod: health, version, load, models and metrics."""

import time
from typing import Any

from kvsync_mockpod.http.asgi import Request, Response, json_response, text_response
from kvsync_mockpod.http.errors import not_found
from kvsync_mockpod.metrics import Family, Gauge, fault_families, format_labels, publisher_families, render
from kvsync_mockpod.pod import Pod


async def health(pod: Pod, request: Request) -> Response:
    """200 with an empty body; 503 if an engine has stopped or the pod is shutting down."""
    del request
    ready = pod.healthy and not pod.state.draining
    return text_response("", 200 if ready else 503)


async def ping(pod: Pod, request: Request) -> Response:
    """The same as `health`, under the name that SageMaker uses."""
    return await health(pod, request)


async def version(pod: Pod, request: Request) -> Response:
    """The vLLM version that the pod imitates."""
    del request
    return json_response({"version": pod.version})


async def load(pod: Pod, request: Request) -> Response:
    """The number of requests being served."""
    del request
    return json_response({"server_load": pod.server_load if pod.config.enable_server_load_tracking else 0})


def _card(pod: Pod, name: str, root: str, parent: str | None) -> dict[str, Any]:
    permission = {
        "id": f"modelperm-{name}",
        "object": "model_permission",
        "created": int(pod.started_s),
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    return {
        "id": name,
        "object": "model",
        "created": int(pod.started_s),
        "owned_by": "vllm",
        "root": root,
        "parent": parent,
        "max_model_len": pod.config.max_model_len if parent is None else None,
        "permission": [permission],
    }


def _cards(pod: Pod) -> list[dict[str, Any]]:
    base = pod.config.names[0]
    cards = [_card(pod, name, pod.config.model, None) for name in pod.config.names]
    return cards + [_card(pod, adapter.name, adapter.path, base) for adapter in pod.loras.adapters()]


async def models(pod: Pod, request: Request) -> Response:
    """The base model under all its names, and the adapters."""
    del request
    return json_response({"object": "list", "data": _cards(pod)})


async def model(pod: Pod, request: Request) -> Response:
    """One model's card. Raises `HttpError` 404."""
    for card in _cards(pod):
        if card["id"] == request.path_parameter:
            return json_response(card)
    raise not_found(f"The model `{request.path_parameter[:200]}` does not exist.", "model")


def _lora_family(pod: Pod) -> list[Family]:
    if not pod.accepts_loras:
        return []
    running: set[str] = set()
    waiting: set[str] = set()
    for rank in pod.ranks:
        stats = rank.engine.statistics()
        running.update(stats.running_loras)
        waiting.update(stats.waiting_loras)
    labels = format_labels(
        {
            "max_lora": str(pod.config.max_loras),
            "waiting_lora_adapters": ",".join(sorted(waiting)),
            "running_lora_adapters": ",".join(sorted(running)),
        }
    )
    return [
        Family(
            "vllm:lora_requests_info", "gauge", "Adapters in use; the value is the time.", [Gauge(time.time, labels)]
        )
    ]


async def metrics(pod: Pod, request: Request) -> Response:
    """Metrics in the Prometheus text format."""
    del request
    config = pod.config
    rank_engine = pod.ranks[0].engine.config
    info = {
        "block_size": str(config.block_size),
        "cache_dtype": "auto",
        "enable_prefix_caching": str(config.enable_prefix_caching),
        "gpu_memory_utilization": "0.92",
        "num_cpu_blocks": str(config.mock_host_blocks or None),
        "num_gpu_blocks": str(config.num_gpu_blocks_override),
        "num_gpu_blocks_override": str(config.num_gpu_blocks_override),
        "prefix_caching_hash_algo": rank_engine.hash_algo,
        "sliding_window": "None",
    }
    families: list[Family] = []
    for rank in pod.ranks:
        families += rank.metrics.families(rank.engine.statistics(), max(pod.state.sleep_level, 0), info)
        families += publisher_families(rank.rank, rank.publisher.statistics())
    families += _lora_family(pod)
    families += fault_families(pod.faults.counts)
    return text_response(render(families), 200, b"text/plain; version=0.0.4; charset=utf-8")
