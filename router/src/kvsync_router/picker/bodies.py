"""The bodies of requests that wait for their end. Both one body and all of them together have a limit."""


class BodyBudget:
    """The bytes that waiting bodies hold, in all streams."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0


class WaitingBody:
    """The beginning of one body: pieces are added until it is sealed, and its memory counts until it is released."""

    __slots__ = ("_budget", "_buffer", "_held_bytes", "_limit_bytes", "content")

    def __init__(self, limit_bytes: int, budget: BodyBudget) -> None:
        self._limit_bytes = limit_bytes
        self._budget = budget
        self._buffer = bytearray()
        self._held_bytes = 0
        self.content = b""
        """What was added, once the body is sealed."""

    def add(self, piece: bytes) -> bool:
        """Keep a piece. Returns False if the body, or all bodies together, are now longer than they may be."""
        self._buffer += piece
        self._held_bytes += len(piece)
        self._budget.held_bytes += len(piece)
        return self._held_bytes <= self._limit_bytes and self._budget.held_bytes <= self._budget.limit_bytes

    def seal(self) -> bytes:
        """Make `content` of the pieces and return it."""
        self.content = bytes(self._buffer)
        self._buffer = bytearray()
        return self.content

    def release(self) -> None:
        """Forget the body."""
        self._budget.held_bytes -= self._held_bytes
        self._held_bytes = 0
        self._buffer = bytearray()
        self.content = b""
