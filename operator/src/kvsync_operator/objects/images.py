"""The images of pods whose resource names none."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Images:
    """Default images, which are a setting of the operator."""

    mockpod: str = "kvsync/mockpod:0.1.0"
    indexer: str = "kvsync/indexer:0.1.0"
