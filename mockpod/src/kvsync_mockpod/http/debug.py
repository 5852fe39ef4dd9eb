"""`/debug/kv`: the ground truth that checkers compare an index with. It is served with `--mock-debug` only.

Everything is read from the engine's own block table and transition log, never from what was published.
"""

import asyncio
from collections import deque
from typing import Any

from kvsync_events import SetDigest, WireForm
from kvsync_mockpod.engine import LogEntry, ResidentBlock
from kvsync_mockpod.faults.active import FaultEntry
from kvsync_mockpod.http.asgi import Request, Response, json_response
from kvsync_mockpod.http.errors import bad_request
from kvsync_mockpod.http.streaming import encode
from kvsync_mockpod.pod import Pod, Rank

_NDJSON = (b"content-type", b"application/x-ndjson")
_SLICE = 512


def shown_hash(form: WireForm, digest: bytes | None) -> int | str | None:
    """A hash as JSON shows it: the unsigned integer that is published, or hex where bytes are published."""
    if digest is None:
        return None
    on_wire = form.wire_hash(digest)
    if isinstance(on_wire, int) and -(2**63) <= on_wire < 2**64:
        return on_wire & 2**64 - 1
    return digest.hex()


def shown_group(form: WireForm, group_idx: int | None) -> int | None:
    """The cache group as the events of this version name it; before 0.20 they do not."""
    return group_idx if "group_idx" in form.stored_fields else None


def _ranks(pod: Pod, request: Request) -> list[Rank]:
    wanted = request.query.get("rank")
    if wanted is None:
        return pod.ranks
    number = request.query_int("rank", 0, 0, 2**31)
    found = [rank for rank in pod.ranks if rank.rank == number]
    if not found:
        here = ", ".join(str(rank.rank) for rank in pod.ranks)
        raise bad_request(f"rank: {number} is not one of this pod's ranks {here}", "rank")
    return found


def _block_line(form: WireForm, rank: int, block: ResidentBlock) -> bytes:
    return encode(
        {
            "hash": shown_hash(form, block.hash),
            "parent": shown_hash(form, block.parent),
            "medium": block.medium,
            "group_idx": shown_group(form, block.group_idx),
            "copies": block.copies,
            "token_ids": block.token_ids,
            "lora_name": block.lora_name,
            "lora_id": block.lora_id,
            "extra_keys": block.extra_keys,
            "rank": rank,
        }
    )


async def kv_blocks(pod: Pod, request: Request) -> Response:
    """Resident blocks, one JSON object per line, all of the same moment; the response is written in slices."""
    blocks = [(rank.rank, block) for rank in _ranks(pod, request) for block in rank.engine.blocks()]
    parts = []
    for position in range(0, len(blocks), _SLICE):
        lines = [_block_line(pod.form, rank, block) for rank, block in blocks[position : position + _SLICE]]
        parts.append(b"\n".join(lines) + b"\n")
        await asyncio.sleep(0)
    return Response(b"".join(parts), 200, _NDJSON)


async def kv_log(pod: Pod, request: Request) -> Response:
    """The transition log from entry `since` on per rank, one JSON object per line."""
    since = request.query_int("since", 0, 0, 2**63 - 1)
    limit = request.query_int("limit", 1_000_000, 1, 1_000_000)
    lines: list[bytes] = []
    for rank in _ranks(pod, request):
        faults = [fault for fault in pod.faults.log(rank.rank) if fault.before >= since]
        lines += _merged(pod.form, rank, rank.log_since(since, limit), faults)
    body = b"\n".join(lines)
    return Response(body + b"\n" if body else b"", 200, _NDJSON)


def _merged(form: WireForm, rank: Rank, entries: list[LogEntry], faults: list[FaultEntry]) -> list[bytes]:
    """Merge transitions and injected faults; each fault stands before the transition that it preceded."""
    lines = []
    waiting = deque(faults)
    for entry in entries:
        while waiting and waiting[0].before <= entry.n:
            lines.append(encode(_shown_fault(waiting.popleft())))
        lines.append(encode(_shown_entry(form, rank, entry)))
    return lines + [encode(_shown_fault(fault)) for fault in waiting]


def _shown_fault(fault: FaultEntry) -> dict[str, Any]:
    return {
        "n": fault.before,
        "rank": fault.rank,
        "kind": "fault",
        "fault": fault.fault,
        "seq": fault.seq,
        "detail": fault.detail,
    }


def _shown_entry(form: WireForm, rank: Rank, entry: LogEntry) -> dict[str, Any]:
    return {
        "n": entry.n,
        "rank": rank.rank,
        "step": entry.step,
        "kind": entry.kind,
        "hash": shown_hash(form, entry.hash),
        "parent": shown_hash(form, entry.parent),
        "medium": entry.medium,
        "group_idx": shown_group(form, entry.group_idx),
    }


async def kv_digest(pod: Pod, request: Request) -> Response:
    """Count and digest of the resident hashes per rank, group and medium, and the last sequence number published."""
    ranks = _ranks(pod, request)
    digests: list[dict[str, Any]] = []
    for rank in ranks:
        sets: dict[tuple[int | None, str], SetDigest] = {}
        for block in rank.engine.blocks():
            key = (shown_group(pod.form, block.group_idx), block.medium)
            if key not in sets:
                sets[key] = SetDigest()
            sets[key].add(pod.form.wire_hash(block.hash))
        if not sets:
            sets[(shown_group(pod.form, 0), "GPU")] = SetDigest()
        for (group, medium), found in sets.items():
            digests.append(
                {"rank": rank.rank, "group_idx": group, "medium": medium, "count": found.count, "digest": found.hex()}
            )
    return json_response(
        {
            "digests": digests,
            "seq": {str(rank.rank): rank.publisher.last_seq for rank in ranks},
            "quiet": all(rank.quiet for rank in ranks),
        }
    )
