"""Block managers over the mock engine's own block table and tiers, with block ids, events and a registry.

Everything that decides (what is reused next, what a prefix lookup finds, who refuses a duplicate, which events a change
causes) is the product's code in `kvsync_mockpod.engine`; `stores` is the only module here that touches it. The kit adds
what the mock engine does without: an id for each block, so that tests can put real bytes behind it, and the life of a
block as separate steps: allocate, complete, register, match, release.
"""

from kvsync_mockpod.engine.tiers import FrequencyTracker, TrackerSize
from kvsync_testkit.managers.building import ManagerBuilder
from kvsync_testkit.managers.events import EventsManager
from kvsync_testkit.managers.manager import TierManager
from kvsync_testkit.managers.policies import AllEvents, EventPolicy, PowersOfTwo
from kvsync_testkit.managers.populating import (
    InstancePopulation,
    MultiInstancePopulator,
    populate_manager_with_blocks,
)
from kvsync_testkit.managers.registry import BlockRegistry, RegistryBuilder
from kvsync_testkit.managers.states import AllocatedBlocks, CompletedBlocks, HeldBlocks
from kvsync_testkit.managers.tiers import Tier

__all__ = [
    "AllEvents",
    "AllocatedBlocks",
    "BlockRegistry",
    "CompletedBlocks",
    "EventPolicy",
    "EventsManager",
    "FrequencyTracker",
    "HeldBlocks",
    "InstancePopulation",
    "ManagerBuilder",
    "MultiInstancePopulator",
    "PowersOfTwo",
    "RegistryBuilder",
    "Tier",
    "TierManager",
    "TrackerSize",
    "populate_manager_with_blocks",
]
