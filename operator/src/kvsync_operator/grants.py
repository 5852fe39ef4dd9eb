"""Which PrefixIndexes may follow the pods of other namespaces.

A PrefixIndex gets a Role that reads pods, and its author may choose the image that uses it. Whoever may create one in a
namespace must not reach pods of another in this way. The installation therefore grants pairs of namespaces; without a
grant a PrefixIndex follows the pods of its own namespace only.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

_NAMESPACE = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
GRANT_PATTERN = rf"^(\*|{_NAMESPACE})=(\*|{_NAMESPACE})$"
ANY = "*"


@dataclass(frozen=True, slots=True)
class Grants:
    """Pairs of (namespace of the PrefixIndex, namespace of the pods); `*` stands for every namespace."""

    pairs: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Self:
        """Parse `INDEX_NAMESPACE=POD_NAMESPACE` texts. Raises ValueError."""
        pairs = set()
        for text in texts:
            if not re.fullmatch(GRANT_PATTERN, text):
                raise ValueError(f"{text!r} must be INDEX_NAMESPACE=POD_NAMESPACE, where * stands for every namespace")
            index, _, pods = text.partition("=")
            pairs.add((index, pods))
        return cls(frozenset(pairs))

    def allow(self, index: str, pods: str) -> bool:
        """Whether a PrefixIndex in namespace `index` may follow pods in namespace `pods`."""
        return index == pods or not self.pairs.isdisjoint((one, other) for one in (index, ANY) for other in (pods, ANY))
