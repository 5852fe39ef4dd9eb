"""The command-line flags of the router's settings, for `kvsync-router` and, with a prefix, for `kvsync-indexer`."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import click

from kvsync_indexer.engine_keys import read_api_key, read_secret
from kvsync_router.config import RouterConfig
from kvsync_router.decisions.affinity import FORMS
from kvsync_router.decisions.policies import POLICY_NAMES


@dataclass(frozen=True, slots=True)
class _Flag:
    """One flag: its name without dashes and prefix, the setting that it sets, and its help."""

    name: str
    field: str
    kind: Any
    help: str = ""


_FLAGS: Final = (
    _Flag("policy", "policy", str, f"How an endpoint is chosen: {', '.join(POLICY_NAMES)}."),
    _Flag("seed", "seed", int, "Seed of random choices and tie-breaks."),
    _Flag("prefill-weight", "prefill_weight", float, "kv: cost of a queued prompt token."),
    _Flag("decode-weight", "decode_weight", float, "kv: cost of a context token of a running request."),
    _Flag("tier-weights", "tier_weights", str, "kv: what a matched token is worth by its tier."),
    _Flag("speculative-ttl", "speculative_ttl_s", float, "kv: seconds for which a routed prompt counts as cached."),
    _Flag("session-affinity", "session_affinity", str, f"Where a request names its session: {FORMS}."),
    _Flag("attempts", "attempts", int, "Endpoints tried before the first byte."),
    _Flag("match-timeout", "match_timeout_s", float, "Seconds to wait for the index."),
    _Flag(
        "first-byte-timeout",
        "first_byte_timeout_s",
        float,
        "Seconds until an answer begins; 0.1 s more per token of an answer that is not streamed.",
    ),
    _Flag("idle-timeout", "idle_timeout_s", float, "Longest pause of an answer, in seconds."),
    _Flag("health-timeout", "health_timeout_s", float, "Seconds to answer /health."),
    _Flag("max-requests", "max_requests", int, "Requests in flight; one more gets 429."),
    _Flag("max-queued", "max_queued", int, "Requests whose answer has not begun; 0: no limit."),
    _Flag("max-endpoint-requests", "max_endpoint_requests", int, "Requests in flight per endpoint; 0: no limit."),
    _Flag("max-endpoint-queued", "max_endpoint_queued", int, "The same for answers that have not begun; 0: no limit."),
    _Flag("access-log", "access_log", bool, "Write one line per request."),
)


def setting_flags(prefix: str = "", *, without: Collection[str] = ()) -> list[click.Option]:
    """The flags, named `--{prefix}NAME`, but not those of the fields `without`."""
    return [
        click.Option(
            [f"--{prefix}{flag.name}", _parameter(prefix, flag)],
            type=flag.kind,
            is_flag=flag.kind is bool,
            default=_default(flag),
            show_default=flag.kind is not bool,
            help=flag.help,
        )
        for flag in _FLAGS
        if flag.field not in without
    ]


def settings_of(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings in the values of `setting_flags(prefix)`, for `RouterConfig.parse`."""
    given = ((flag.field, _parameter(prefix, flag)) for flag in _FLAGS)
    return {field: values[parameter] for field, parameter in given if parameter in values}


def _parameter(prefix: str, flag: _Flag) -> str:
    return f"{prefix}{flag.name}".replace("-", "_")


def _default(flag: _Flag) -> object:
    default = RouterConfig.model_fields[flag.field].default
    return (
        ",".join(f"{tier}={weight:g}" for tier, weight in default.items()) if isinstance(default, Mapping) else default
    )


def read_secrets(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a router of its own is told by files: the engines' key, and the index's token and authority.

    Raises ConfigError for a file that cannot be used.
    """
    token_file = values["index_token_file"]
    return {
        "engine_api_key": read_api_key(values["engine_api_key"], values["engine_api_key_file"]),
        "index_token": None if token_file is None else read_secret("--index-token-file", token_file),
        "index_ca_file": values["index_ca_file"],
    }
