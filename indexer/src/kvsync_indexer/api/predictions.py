"""`POST /v1/predictions`: a router reports how a prediction of the index turned out."""

import msgspec


class PredictionReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request that was routed and answered."""

    publisher: str
    predicted_tokens: int
    """Matched tokens that the index named for this publisher."""
    cached_tokens: int
    """`usage.prompt_tokens_details.cached_tokens` of the engine's answer."""
    prompt_tokens: int | None = None
    """`usage.prompt_tokens`. Without it, a prompt that is cached as a whole counts as one block predicted too many."""


class PredictionAnswer(msgspec.Struct):
    """What the index knows of the publisher's predictions after the report."""

    publisher: str
    requests: int
    """Reports so far."""
    error: float
    """Share of the predicted or cached tokens that were wrong, 0 to 1."""
    wants_report: bool = False
    """The index wants the engine to announce this prompt again: the router adds `vllm_xargs: {"kv_cache_report_mode":
    "full"}` to the next request with the same beginning that it sends to this publisher."""
