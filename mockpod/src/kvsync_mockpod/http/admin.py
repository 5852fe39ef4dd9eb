"""Endpoints to operate a running pod: adapters, cache reset, sleep and pause.

As in vLLM, adapters are loaded at run time only with `VLLM_ALLOW_RUNTIME_LORA_UPDATING`. The other endpoints, except
`/kv_event_sources`, are served only with `VLLM_SERVER_DEV_MODE`.
"""

import msgspec

from kvsync_mockpod.http.asgi import Request, Response, json_response, text_response
from kvsync_mockpod.http.errors import bad_request, not_found
from kvsync_mockpod.http.schemas import LoadLoraRequest, UnloadLoraRequest
from kvsync_mockpod.pod import Pod

_load_decoder = msgspec.json.Decoder(LoadLoraRequest, strict=False)
_unload_decoder = msgspec.json.Decoder(UnloadLoraRequest, strict=False)
_MODES = ("abort", "wait", "keep")


async def load_lora(pod: Pod, request: Request) -> Response:
    """Load an adapter. Raises `HttpError` 400."""
    body = await request.decode(_load_decoder)
    name, path = body.lora_name, body.lora_path
    if not name or not path:
        raise bad_request("Both 'lora_name' and 'lora_path' must be provided.", "lora_path" if name else "lora_name")
    if name in pod.config.names:
        raise bad_request(f"The name {name!r} is the base model's.", "lora_name")
    if pod.loras.get(name) is not None and not body.load_inplace:
        raise bad_request(
            f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, "
            "set 'load_inplace' to True.",
            "lora_name",
        )
    if len(pod.loras.adapters()) >= _MAX_ADAPTERS:
        raise bad_request(f"{_MAX_ADAPTERS} adapters are loaded, which is the maximum", "lora_name")
    pod.loras.load(name, path)
    return text_response(f"Success: LoRA adapter '{name}' added successfully.")


async def unload_lora(pod: Pod, request: Request) -> Response:
    """Unload an adapter, which aborts its requests in flight. Raises `HttpError` 404."""
    body = await request.decode(_unload_decoder)
    if not body.lora_name:
        raise bad_request("'lora_name' needs to be provided to unload a LoRA adapter.", "lora_name")
    if not pod.loras.unload(body.lora_name):
        raise not_found(f"The lora adapter '{body.lora_name}' cannot be found.", "lora_name")
    return text_response(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")


async def reset_prefix_cache(pod: Pod, request: Request) -> Response:
    """Forget every cached block; `success` is false while requests hold blocks."""
    done = pod.reset_prefix_cache(
        reset_running_requests=request.query_flag("reset_running_requests"),
        reset_external=request.query_flag("reset_external"),
    )
    return json_response({"success": done})


def _mode(request: Request) -> str:
    mode = request.query.get("mode", "abort")
    if mode not in _MODES:
        raise bad_request(f"mode: {mode[:40]!r} is not one of {', '.join(_MODES)}", "mode")
    return mode


async def sleep(pod: Pod, request: Request) -> Response:
    """Put the engine to sleep: nothing is scheduled and requests wait; from level 1 on the cache is lost."""
    level = request.query_int("level", 1, 0, 2)
    mode = _mode(request)
    await pod.pause(mode)
    if level >= 1:
        pod.reset_prefix_cache(reset_running_requests=True, reset_external=False)
    pod.state.sleep_level = level
    return json_response({"status": "sleeping", "level": level})


async def wake_up(pod: Pod, request: Request) -> Response:
    """Wake the engine; `tags` (weights, kv_cache) are accepted, but everything is woken at once."""
    del request
    pod.resume()
    return json_response({"status": "awake"})


async def is_sleeping(pod: Pod, request: Request) -> Response:
    """Report whether the engine sleeps."""
    del request
    return json_response({"is_sleeping": pod.state.sleep_level >= 0})


async def pause(pod: Pod, request: Request) -> Response:
    """Stop scheduling; `clear_cache` (by default true) also resets the cache."""
    mode = _mode(request)
    clear = request.query_flag("clear_cache", default=True)
    await pod.pause(mode)
    if clear:
        pod.reset_prefix_cache(reset_running_requests=mode == "keep", reset_external=False)
    return json_response({"status": "paused"})


async def resume(pod: Pod, request: Request) -> Response:
    """Schedule again."""
    del request
    pod.resume()
    return json_response({"status": "resumed"})


async def is_paused(pod: Pod, request: Request) -> Response:
    """Report whether scheduling is paused."""
    del request
    return json_response({"is_paused": pod.state.paused})


async def server_info(pod: Pod, request: Request) -> Response:
    """The configuration as text, or as an object with `config_format=json`.

    As in vLLM, the object has a `model_config` with the maximum length; here it also names the size of the vocabulary.
    """
    form = request.query.get("config_format", "text")
    if form not in ("text", "json"):
        raise bad_request(f"config_format: {form[:40]!r} is not text or json", "config_format")
    shown = pod.config.model_dump(mode="json", exclude={"api_key"})
    if form == "text":
        return json_response({"vllm_config": ", ".join(f"{key}={value!r}" for key, value in shown.items())})
    sizes = {"max_model_len": pod.config.max_model_len, "vocab_size": pod.config.mock_vocab_size}
    return json_response({"vllm_config": {**shown, "model_config": {"model": pod.config.model, **sizes}}})


async def kv_event_sources(pod: Pod, request: Request) -> Response:
    """The event endpoints of each rank, with the ports that the system chose."""
    del request
    events = pod.config.events
    if not events.publishes:
        return json_response({})
    sources = {}
    for rank in pod.ranks:
        sources[str(rank.rank)] = {
            **events.model_dump(mode="json"),
            "publisher": "zmq",
            "endpoint": rank.publisher.endpoint,
            "replay_endpoint": rank.publisher.replay_endpoint,
        }
    return json_response(sources)


_MAX_ADAPTERS = 1024
