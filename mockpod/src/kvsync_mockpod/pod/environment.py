"""The environment variables of vLLM that the pod obeys, read once at start."""

from collections.abc import Mapping
from dataclasses import dataclass

from kvsync_mockpod.config.vllm_flags import known_variables
from kvsync_mockpod.errors import ConfigError
from kvsync_mockpod.suggestions import did_you_mean

_OBEYED = frozenset(
    (
        "VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING",
        "VLLM_SERVER_DEV_MODE",
        "VLLM_API_KEY",
    )
)


def ignored_variables(variables: Mapping[str, str]) -> list[str]:
    """Names of vLLM's variables that are set and have no effect on the pod."""
    return sorted(name for name in variables if name in known_variables() and name not in _OBEYED)


def unknown_variables(variables: Mapping[str, str]) -> list[str]:
    """Names of variables that are set and look like vLLM's, which does not read them; each with the nearest name."""
    known = known_variables() | _OBEYED
    found = sorted(name for name in variables if name.startswith("VLLM_") and name not in known)
    return [name + did_you_mean(name, known) for name in found]


@dataclass(frozen=True, slots=True)
class Environment:
    """Settings that vLLM takes from the environment instead of flags."""

    hash_seed: str | None = None
    """`PYTHONHASHSEED`, which determines the parent hash of first blocks; None if it is unset or `random`."""
    int_block_hashes: bool = True
    """`VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES`: publish 64-bit integers instead of digests."""
    runtime_lora_updating: bool = False
    """`VLLM_ALLOW_RUNTIME_LORA_UPDATING`: serve the endpoints that load and unload adapters."""
    dev_mode: bool = False
    """`VLLM_SERVER_DEV_MODE`: serve reset_prefix_cache, sleep, pause and similar endpoints."""
    api_key: str | None = None
    """`VLLM_API_KEY`: an additional API key."""

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> "Environment":
        """Read the settings from `os.environ` or another mapping.

        Raises:
            ConfigError: a switch is neither on nor off.
        """
        seed = variables.get("PYTHONHASHSEED") or None
        return cls(
            hash_seed=None if seed == "random" else seed,
            int_block_hashes=_switch(variables, "VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES", default=True),
            runtime_lora_updating=_switch(variables, "VLLM_ALLOW_RUNTIME_LORA_UPDATING", default=False),
            dev_mode=_switch(variables, "VLLM_SERVER_DEV_MODE", default=False),
            api_key=variables.get("VLLM_API_KEY") or None,
        )


def _switch(variables: Mapping[str, str], name: str, *, default: bool) -> bool:
    value = variables.get(name)
    if value is None or value == "":
        return default
    if value.lower() in ("1", "true"):
        return True
    if value.lower() in ("0", "false"):
        return False
    raise ConfigError(f"{name}: {value!r} refused; allowed: 1, true, 0, false")
