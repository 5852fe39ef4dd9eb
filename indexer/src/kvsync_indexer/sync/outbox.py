"""The answer to one input while it is being built: actions in order, consecutive batches joined into runs."""

from kvsync_indexer.sync.actions import Action, Apply


class Outbox:
    """Collects the actions of one input."""

    __slots__ = ("_actions", "_first", "_run")

    def __init__(self) -> None:
        self._actions: list[Action] = []
        self._run: list[bytes] = []
        self._first = 0

    def emit(self, action: Action) -> None:
        """Add an action behind everything added so far."""
        self._flush()
        self._actions.append(action)

    def apply(self, seq: int, payload: bytes) -> None:
        """Add a payload; it joins the run before it if its number follows on."""
        if self._run and seq != self._first + len(self._run):
            self._flush()
        if not self._run:
            self._first = seq
        self._run.append(payload)

    def take(self) -> list[Action]:
        """Return everything added since the last call."""
        self._flush()
        actions, self._actions = self._actions, []
        return actions

    def _flush(self) -> None:
        if self._run:
            self._actions.append(Apply(self._first, tuple(self._run)))
            self._run = []
