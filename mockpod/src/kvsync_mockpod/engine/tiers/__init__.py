"""Lower cache tiers: host memory (G2) and disk (G3) behind the device's block table (G1)."""

from .config import TierConfig
from .links import Link, Transfer
from .offload import OffloadEngine, OnboardHandle, PreparedOnboard, SourceBlock
from .report import LinkReport, TierReport
from .store import TierStore

__all__ = [
    "Link",
    "LinkReport",
    "OffloadEngine",
    "OnboardHandle",
    "PreparedOnboard",
    "SourceBlock",
    "TierConfig",
    "TierReport",
    "TierStore",
    "Transfer",
]
