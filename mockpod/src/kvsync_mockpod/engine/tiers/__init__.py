"""Lower cache tiers: host memory (G2) and disk (G3) behind the device's block table (G1)."""

from kvsync_mockpod.engine.tiers.blocks import BlockContext, SourceBlock, StoredBlock, TierSink
from kvsync_mockpod.engine.tiers.config import TierConfig
from kvsync_mockpod.engine.tiers.engine import OffloadEngine
from kvsync_mockpod.engine.tiers.frequency import FrequencyTracker, TrackerSize
from kvsync_mockpod.engine.tiers.links import Link, Transfer
from kvsync_mockpod.engine.tiers.onboard import OnboardHandle, PreparedOnboard
from kvsync_mockpod.engine.tiers.report import LinkReport, TierReport
from kvsync_mockpod.engine.tiers.store import Eviction, LineageStore, TierStore, make_store

__all__ = [
    "BlockContext",
    "Eviction",
    "FrequencyTracker",
    "LineageStore",
    "Link",
    "LinkReport",
    "OffloadEngine",
    "OnboardHandle",
    "PreparedOnboard",
    "SourceBlock",
    "StoredBlock",
    "TierConfig",
    "TierReport",
    "TierSink",
    "TierStore",
    "TrackerSize",
    "Transfer",
    "make_store",
]
