"""What leaders say to each other, as values."""

from typing import TypeAlias

import msgspec


class G2Block(msgspec.Struct, frozen=True):
    """A block in an instance's host tier.

    Attributes:
        hash: Digest of the block.
        block_id: Its place in the host layouts of that instance's workers.
    """

    hash: bytes
    block_id: int


class Find(msgspec.Struct, tag=True, frozen=True):
    """Which of these do you have? Answered by `Found`."""

    hashes: list[bytes]


class Found(msgspec.Struct, tag=True, frozen=True):
    """What the asked instance has: `(hash, tier, block id)` of each block, whether contiguous or not."""

    blocks: list[tuple[bytes, str, int]]


class Attach(msgspec.Struct, tag=True, frozen=True):
    """The sender asks to pull from this session."""

    session: int


class Ready(msgspec.Struct, tag=True, frozen=True):
    """Every block of the session is in the host tier of its holder now."""

    session: int
    blocks: list[G2Block]


class LayersReady(msgspec.Struct, tag=True, frozen=True):
    """These layers of every block of the session are computed."""

    session: int
    layers: list[int]


class Closed(msgspec.Struct, tag=True, frozen=True):
    """The holder ended the session; `reason` is empty if it was simply closed."""

    session: int
    reason: str = ""


class Fetch(msgspec.Struct, tag=True, frozen=True):
    """One layer of these blocks from one worker. `whole`: complete blocks are copied, one layer at a time."""

    session: int
    worker: int
    layer: int
    block_ids: list[int]
    whole: bool


class Fetched(msgspec.Struct, tag=True, frozen=True):
    """Digests of the parts that follow as frames, in the order of the request."""

    digests: list[bytes]


class Done(msgspec.Struct, tag=True, frozen=True):
    """Understood."""


class Refused(msgspec.Struct, tag=True, frozen=True):
    """The request failed; `closed` tells a closed session from other reasons."""

    reason: str
    closed: bool = False


Request: TypeAlias = Find | Attach | Ready | LayersReady | Closed | Fetch
Reply: TypeAlias = Found | Fetched | Done | Refused
