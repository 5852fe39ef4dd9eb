"""The adapters that a pod serves, by name. As in vLLM, ids count up from 1 and are never reused."""

from collections.abc import Iterable

from kvsync_mockpod.config import LoraModule
from kvsync_mockpod.engine import LoraRef


class LoraRegistry:
    """The loaded adapters in the order in which they were loaded."""

    def __init__(self, modules: Iterable[LoraModule]) -> None:
        self._loaded: dict[str, LoraRef] = {}
        self._next_id = 1
        for module in modules:
            self.load(module.name, module.path)

    def load(self, name: str, path: str) -> LoraRef:
        """Add or replace an adapter."""
        adapter = LoraRef(name, self._next_id, path)
        self._next_id += 1
        self._loaded[name] = adapter
        return adapter

    def unload(self, name: str) -> bool:
        """Remove an adapter; returns False if it is not loaded."""
        return self._loaded.pop(name, None) is not None

    def get(self, name: str) -> LoraRef | None:
        """The adapter with this name, or None."""
        return self._loaded.get(name)

    def adapters(self) -> list[LoraRef]:
        """All loaded adapters."""
        return list(self._loaded.values())
