"""Numbers for block prefixes: equal numbers mean an equal block after an equal prefix, whatever ids a trace uses."""

from array import array
from collections.abc import Iterable


class PrefixTree:
    """Every prefix of block ids seen so far, numbered from 1 in order of first appearance.

    A longer prefix thus has a larger number, and those that one call of `path` adds are numbered consecutively.

    Ids of a well-formed trace already stand for whole prefixes, so nearly all ids have one parent. Those are found by
    id alone; only an id that follows several prefixes needs a key that includes its parent.
    """

    def __init__(self) -> None:
        self._parents = array("q", [0])
        self._first: dict[int, int] = {}
        self._others: dict[tuple[int, int], int] = {}

    def path(self, block_ids: Iterable[int]) -> list[int]:
        """The number of each prefix of `block_ids`, from one block to all of them."""
        first, parents = self._first, self._parents
        path: list[int] = []
        node = 0
        for block_id in block_ids:
            child = first.get(block_id)
            if child is None:
                child = first[block_id] = len(parents)
                parents.append(node)
            elif parents[child] != node:
                child = self._others.setdefault((node, block_id), len(parents))
                if child == len(parents):
                    parents.append(node)
            path.append(child)
            node = child
        return path
