"""vLLM's `kv_transfer_config` read strictly.

Field names are those of `KVTransferConfig` (`vllm/config/kv_transfer.py`, 0.33). Fields that concern only vLLM itself
are checked for type and then left alone.
"""

from typing import Any, Final

import msgspec

from kvsync_testkit.errors import ConfigurationError
from kvsync_testkit.naming import unknown_name

_VLLM_FIELDS: Final[dict[str, Any]] = {
    "kv_connector": str,
    "kv_role": str,
    "engine_id": str,
    "kv_buffer_device": str,
    "kv_buffer_size": float,
    "kv_rank": int,
    "kv_parallel_size": int,
    "kv_ip": str,
    "kv_port": int,
    "kv_connector_extra_config": dict[str, Any],
    "kv_connector_module_path": str,
    "enable_permute_local_kv": bool,
    "kv_load_failure_policy": str,
}
_EXTRA_FIELDS: Final[dict[str, Any]] = {
    "leader_cache_gb": float,
    "leader_cache_blocks": int,
    "leader_disk_gb": float,
    "device_blocks": int,
    "worker_threads": int,
    "block_size": int,
    "backends": list[str],
}


def parse_transfer_config(text: str | bytes) -> dict[str, Any]:
    """The keyword arguments for `ConnectorTestConfig` that this JSON stands for.

    Raises:
        ConfigurationError: as `ConnectorTestConfig.from_json`.
    """
    try:
        raw = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"kv_transfer_config: {error}") from None
    config = _typed(raw, _VLLM_FIELDS, "key of kv_transfer_config")
    for name in ("kv_connector", "kv_role"):
        if name not in config:
            raise ConfigurationError(f"kv_transfer_config: {name} is missing")
    parallel, rank = config.get("kv_parallel_size", 1), config.get("kv_rank", 0)
    if not 0 <= rank < parallel:
        raise ConfigurationError(f"kv_rank {rank} contradicts kv_parallel_size {parallel}")
    extra = _typed(config.get("kv_connector_extra_config", {}), _EXTRA_FIELDS, "key of kv_connector_extra_config")
    if "leader_cache_gb" in extra and "leader_cache_blocks" in extra:
        raise ConfigurationError("leader_cache_gb contradicts leader_cache_blocks: give one of them")
    return {"role": config["kv_role"], **extra}


def _typed(values: dict[str, Any], fields: dict[str, Any], what: str) -> dict[str, Any]:
    typed = {}
    for name, value in values.items():
        if name not in fields:
            raise unknown_name(what, name, fields)
        try:
            typed[name] = msgspec.convert(value, fields[name])
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"{name} {value!r}: {error}") from None
    return typed
