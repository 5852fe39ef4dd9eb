"""`POST /v1/audit`: the comparison of the index with the engines' own block tables."""

from typing import Literal, TypeAlias

import msgspec

Verdict: TypeAlias = Literal["equal", "different", "inconclusive", "unreachable", "no_ground_truth"]
"""`inconclusive`: the engine was busy, or the index had not applied the engine's last batch. `no_ground_truth`: the
publisher has no debug URL."""


class AuditRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What to compare. An empty body compares every publisher at once."""

    publishers: list[str] | None = None
    """Names of the publishers to audit; null audits all."""
    wait_quiet_s: float = 0.0
    """Longest time to wait for the engines to be idle and for the index to catch up, in seconds."""


class SlotDifference(msgspec.Struct):
    """One tier and group in which the index and the engine differ."""

    medium: str
    group_idx: int | None
    engine_blocks: int
    index_blocks: int
    missing: int
    """Blocks that are resident in the engine and not in the index: hits that will be missed."""
    extra: int
    """Blocks that are in the index and not resident in the engine: false hits."""
    missing_examples: list[str] = []
    """Hashes of a few missing blocks."""
    extra_examples: list[str] = []
    """Hashes of a few extra blocks."""
    other_content: int = 0
    """Blocks of both sides that the index takes for blocks of another adapter, cache salt or picture, or of other
    tokens: false hits for those, and hits that will be missed."""
    other_content_examples: list[str] = []
    """Hashes of a few of them."""


class PublisherAudit(msgspec.Struct, kw_only=True):
    """The verdict on one publisher."""

    publisher: str
    verdict: Verdict
    detail: str = ""
    """Why the verdict is not `equal`, or what could not be compared, in one line."""
    state: str = ""
    quiet: bool = False
    """The engine was idle while it was compared."""
    incomplete: bool = False
    """The publisher may hold more than the index knows."""
    engine_blocks: int = 0
    index_blocks: int = 0
    missing: int = 0
    extra: int = 0
    other_content: int = 0
    compared_content: int = 0
    """Blocks of which the engine reports tokens and context and which were compared in these as well. If it reports
    none, only hashes were compared, and `detail` says so."""
    differences: int = 0
    """`missing` + `extra` + `other_content` if the verdict is `different`, else 0."""
    slots: list[SlotDifference] = []
    predicted_requests: int = 0
    """Number of requests for which a router reported both the prediction and what the engine found."""
    prediction_error: float | None = None
    """Share of the predicted or cached tokens that were wrong, 0 to 1; null if nothing was reported."""
    engine_hit_ratio: float | None = None
    """The engine's own ratio of prefix-cache hits to queries; null if the engine does not export it."""


class AuditReport(msgspec.Struct):
    """Every publisher that was audited, and the sums over them."""

    publishers: list[PublisherAudit]
    audited: int
    """Publishers whose verdict is `equal` or `different`."""
    blocks: int
    """Blocks in the tables of the audited engines."""
    differences: int
    equal: bool
    """The verdict on every publisher is `equal`."""
    seconds: float = 0.0
    """Duration of the audit."""
