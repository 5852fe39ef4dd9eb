"""The flags of `kvsync-indexer` for its router and its endpoint picker."""

from collections.abc import Mapping

from kvsync_operator.models.common import duration_seconds
from kvsync_operator.models.router import Placing, Router


def router_args(router: Router) -> list[str]:
    """Return the flags of `kvsync-indexer` that run a router. Settings at their defaults are left out.

    An index of an older release therefore still starts with a PrefixIndex that uses none of the newer fields.
    """
    args = ["--router-port", str(router.port), "--router-policy", router.policy]
    args += changed_settings(router_settings(router), router_settings(Router()))
    if router.access_log == "Enabled":
        args.append("--router-access-log")
    return args


def router_settings(router: Router) -> dict[str, str]:
    """Return every flag of the router that has a value, with the value that the resource asks for."""
    timeouts = router.timeouts
    return {
        **placing_settings("--router-", router),
        "--router-first-byte-timeout": _seconds(timeouts.first_byte),
        "--router-idle-timeout": _seconds(timeouts.idle),
        "--router-health-timeout": _seconds(timeouts.health),
        "--router-attempts": str(router.attempts),
    }


def placing_settings(prefix: str, placing: Placing) -> dict[str, str]:
    """Return the flags about the choice of an engine, which router and picker share."""
    weights, limits = placing.weights, placing.limits
    tiers = {"GPU": weights.gpu_percent, "CPU": weights.cpu_percent, "STORAGE": weights.storage_percent}
    values = {
        "prefill-weight": f"{weights.prefill_percent / 100:g}",
        "decode-weight": f"{weights.decode_percent / 100:g}",
        "tier-weights": ",".join(f"{tier}={percent / 100:g}" for tier, percent in tiers.items()),
        "speculative-ttl": _seconds(placing.speculative),
        "session-affinity": placing.session_affinity,
        "max-requests": str(limits.max_requests),
        "max-queued": str(limits.max_queued),
        "max-endpoint-requests": str(limits.max_endpoint_requests),
        "max-endpoint-queued": str(limits.max_endpoint_queued),
    }
    return {prefix + name: value for name, value in values.items()}


def changed_settings(settings: Mapping[str, str], usual: Mapping[str, str]) -> list[str]:
    """Return the flags whose values differ from the usual ones."""
    return [part for flag, value in settings.items() if value != usual[flag] for part in (flag, value)]


def _seconds(duration: str) -> str:
    return f"{duration_seconds(duration):g}"
