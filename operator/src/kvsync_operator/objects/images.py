"""Which images the pods run when their resource names none."""

from dataclasses import dataclass

__all__ = ["Images"]


@dataclass(frozen=True, slots=True)
class Images:
    """Default images, set where the operator is installed."""

    mockpod: str = "kvsync/mockpod:0.1.0"
    indexer: str = "kvsync/indexer:0.1.0"
