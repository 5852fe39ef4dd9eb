"""The blocks of one publisher whose content is not known yet, and what they wait for."""

from kvsync_indexer.core.blocks import Block, engine_hash


class Orphans:
    """How many orphans there are, and those that wait for a parent."""

    def __init__(self) -> None:
        self.count = 0
        self._waiting: dict[int, dict[int, None]] = {}
        """By the parent's hash: the hashes of the blocks that wait for it, in the order in which they came."""

    def add(self, hashed: int, block: Block) -> None:
        """Count a new orphan, which waits for its parent if it has one."""
        self.count += 1
        self.wait(hashed, block)

    def wait(self, hashed: int, block: Block) -> None:
        """Let an orphan wait for its parent."""
        if block.parent is not None:
            self._waiting.setdefault(engine_hash(block.parent), {})[hashed] = None

    def remove(self, hashed: int, block: Block) -> None:
        """Forget an orphan that was removed, or whose content became known from its own event."""
        self.count -= 1
        if block.parent is None:
            return
        parent = engine_hash(block.parent)
        siblings = self._waiting[parent]
        del siblings[hashed]
        if not siblings:
            del self._waiting[parent]

    def take_children(self, parent: int) -> list[int]:
        """The hashes that wait for this one. They are no longer orphans afterwards."""
        children = list(self._waiting.pop(parent, ()))
        self.count -= len(children)
        return children
