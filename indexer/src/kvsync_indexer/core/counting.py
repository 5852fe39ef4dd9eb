"""`Applied` while it is counted."""

from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from kvsync_indexer.core.protocol import Applied

_VALUES: Final = attrgetter(*Applied._fields)


@dataclass(slots=True)
class AppliedCounts:
    """The fields of `Applied`, in its order."""

    events: int = 0
    stored: int = 0
    removed: int = 0
    cleared: int = 0
    orphans: int = 0
    attached: int = 0
    unknown_removed: int = 0
    unknown_events: int = 0
    refused: int = 0

    def result(self) -> Applied:
        """The finished counts."""
        return Applied._make(_VALUES(self))
