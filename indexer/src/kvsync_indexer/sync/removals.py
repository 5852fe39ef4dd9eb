"""Which removals a publisher announces: that of every copy of a block, or only that of the last one.

VLLM computes the last block of a fully cached prompt again, and then holds two copies under one hash. Every release up
to 0.33 announces the removal of each. An engine that announces only the last one leaves a block behind in an index that
counts copies, and every match of it is a false hit; an index that does not count loses a block too early, which costs a
hit. An option of the publisher decides, or else the engine's version where its rule is known. Otherwise copies are
counted until an audit or wrong predictions speak against it.
"""

from kvsync_events import Removals, removals_of


class RemovalRule:
    """What is known of one publisher's removals."""

    __slots__ = ("_noticed", "_option", "_version")

    def __init__(self) -> None:
        self._option: Removals | None = None
        self._version: Removals | None = None
        self._noticed = ""

    def know(self, option: Removals | None, version: str | None) -> None:
        """Take what the publisher's specification and the engine itself say; None for what is not known."""
        self._option, self._version = option, removals_of(version)

    def notice(self, evidence: str) -> bool:
        """The index has claimed blocks that the engine does not hold; True if this changes the rule."""
        if self._option or self._version or self._noticed:
            return False
        self._noticed = evidence
        return True

    @property
    def removals(self) -> Removals:
        """The rule."""
        return self._option or self._version or ("last_copy" if self._noticed else "each_copy")

    @property
    def note(self) -> str:
        """What to say of the rule beside the publisher's state; empty if it is the usual one."""
        if self.removals == "each_copy":
            return ""
        why = "as configured" if self._option else "as its version does" if self._version else self._noticed
        return f"takes removals for those of last copies: {why}"
