"""The blocks of one publisher whose content is not known yet, and what they wait for."""

from kvsync_indexer.core.blocks import Block


class Orphans:
    """How many orphans there are, and those that wait for a parent."""

    def __init__(self) -> None:
        self.count = 0
        self._waiting: dict[int, dict[int, None]] = {}
        """By the parent's id: the ids of the blocks that wait for it, in the order in which they came."""

    def add(self, ident: int, block: Block) -> None:
        """Count a new orphan, which waits for its parent if it has one."""
        self.count += 1
        self.wait(ident, block)

    def wait(self, ident: int, block: Block) -> None:
        """Let an orphan wait for its parent."""
        parent = block.parent_id
        if parent is not None:
            self._waiting.setdefault(parent, {})[ident] = None

    def remove(self, ident: int, block: Block) -> None:
        """Forget an orphan that was removed, or whose content became known from its own event."""
        self.count -= 1
        parent = block.parent_id
        if parent is None:
            return
        siblings = self._waiting[parent]
        del siblings[ident]
        if not siblings:
            del self._waiting[parent]

    def take_children(self, parent: int) -> list[int]:
        """The ids of the blocks that wait for this one. They are no longer orphans afterwards."""
        children = list(self._waiting.pop(parent, ()))
        self.count -= len(children)
        return children
