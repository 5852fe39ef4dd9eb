"""The exception tree of the sync package.

SyncError
└── ForbiddenTransitionError  the state machine tried a transition that `transitions.TRANSITIONS` does not allow
"""


class SyncError(Exception):
    """Base of every error that this package raises on purpose."""


class ForbiddenTransitionError(SyncError):
    """A defect of the state machine, never the fault of a publisher; the state is left unchanged."""
