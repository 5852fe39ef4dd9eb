"""The adapters a pod serves, by name; ids count up from 1 and are never used twice, as in vLLM."""

from collections.abc import Iterable

from kvsync_mockpod.config import LoraModule
from kvsync_mockpod.engine import LoraRef


class LoraRegistry:
    """Loaded adapters in the order they were loaded."""

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
        """Drop an adapter; False when it was not loaded."""
        return self._loaded.pop(name, None) is not None

    def get(self, name: str) -> LoraRef | None:
        """An adapter by name."""
        return self._loaded.get(name)

    def adapters(self) -> list[LoraRef]:
        """All adapters."""
        return list(self._loaded.values())
