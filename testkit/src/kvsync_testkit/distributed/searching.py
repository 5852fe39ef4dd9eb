"""Where blocks are: in one instance by tier, and across instances."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvsync_testkit.distributed.protocol import Find, Found
from kvsync_testkit.managers.tiers import Tier

if TYPE_CHECKING:
    from kvsync_testkit.distributed.leader import InstanceLeader


@dataclass(frozen=True, slots=True)
class LocatedBlock:
    """A block and the place where it is best read."""

    hash: bytes
    instance: str
    tier: Tier
    block_id: int


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What one instance has of a list of hashes; each hash is in exactly one of the three, in the order asked."""

    g2: list[LocatedBlock]
    g3: list[LocatedBlock]
    missing: list[bytes]


def scan_blocks(leader: "InstanceLeader", hashes: Sequence[bytes]) -> ScanResult:
    """Look every block up in the leader's own tiers: in G2, and only those that are not there in G3.

    The blocks need not be contiguous, and nothing is held.
    """
    host, disk = leader.g2.scan(hashes), leader.g3.scan(hashes)
    return ScanResult(
        g2=[LocatedBlock(one, leader.name, Tier.G2, host[one]) for one in hashes if one in host],
        g3=[LocatedBlock(one, leader.name, Tier.G3, disk[one]) for one in hashes if one in disk and one not in host],
        missing=[one for one in hashes if one not in host and one not in disk],
    )


async def find_matches(leader: "InstanceLeader", hashes: Sequence[bytes]) -> list[LocatedBlock]:
    """The longest prefix of `hashes` that the leader and its peers have together, and where each block is.

    A block that the leader has itself is taken from there, from G2 rather than G3; otherwise the first peer that has it
    counts, in the order of connecting. Peers are asked only for what is missing.
    """
    own = scan_blocks(leader, hashes)
    places = {block.hash: block for block in (*own.g2, *own.g3)}
    missing = own.missing
    for peer in leader.peers:
        if not missing:
            break
        reply, _ = await leader.channel.call(peer, Find(missing))
        assert isinstance(reply, Found)
        places |= {one: LocatedBlock(one, peer, Tier(tier), block_id) for one, tier, block_id in reply.blocks}
        missing = [one for one in missing if one not in places]
    found: list[LocatedBlock] = []
    for one in hashes:
        if one not in places:
            break
        found.append(places[one])
    return found
