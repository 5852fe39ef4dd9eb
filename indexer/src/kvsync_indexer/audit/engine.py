"""What an engine says of its own blocks: `/debug/kv/digest`, `/debug/kv/blocks` and, without them, `/metrics`."""

from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

import aiohttp
import msgspec

from kvsync_events import digest_key
from kvsync_indexer import bounded
from kvsync_indexer.addresses import guarded_connector
from kvsync_indexer.api import DigestRow
from kvsync_indexer.bounded import Bound, fetched
from kvsync_indexer.errors import AuditError, OversizeError

_T = TypeVar("_T")


class EngineDigest(msgspec.Struct):
    """The answer of `/debug/kv/digest`."""

    digests: list[DigestRow]
    seq: dict[str, int | None] = {}
    """Last published sequence number per rank."""
    quiet: bool = False
    """No request is running or waiting, and every event is published."""


class EngineBlock(msgspec.Struct):
    """One line of `/debug/kv/blocks`, as far as it is compared. An engine may leave out what follows the rank."""

    hash: int | str
    medium: str = "GPU"
    group_idx: int | None = None
    rank: int = 0
    parent: int | str | msgspec.UnsetType | None = msgspec.UNSET
    token_ids: list[Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]] | msgspec.UnsetType | None = msgspec.UNSET
    lora_name: str | msgspec.UnsetType | None = msgspec.UNSET
    lora_id: int | None = None
    cache_salt: str | None = None
    extra_keys: list[Any] | msgspec.UnsetType | None = msgspec.UNSET


def hash_key(block_hash: int | str) -> int:
    """The 64 bits of a hash in JSON that count: of a number, or of the bytes that a hex string stands for.

    Raises AuditError for a text that is not hex.
    """
    try:
        return digest_key(block_hash if isinstance(block_hash, int) else bytes.fromhex(block_hash))
    except ValueError:
        raise AuditError(f"the engine names a block {block_hash!r:.80}, which is neither a number nor hex") from None


class EngineClient:
    """Reads from engines. Use it in one event loop, and `close` it there. Every method raises AuditError."""

    def __init__(self, connections: int, token: str | None = None) -> None:
        """`token` is the bearer token of the engines' debug endpoints."""
        self._token = token
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def digest(self, debug_url: str) -> EngineDigest:
        """Digests per rank, group and tier."""
        data = await self._get(f"{debug_url}/debug/kv/digest", bounded.ENGINE_DIGEST, self._token)
        return _decode(data, EngineDigest, debug_url)

    async def blocks(self, debug_url: str, rank: int) -> Iterator[EngineBlock]:
        """The resident blocks of one rank."""
        url = f"{debug_url}/debug/kv/blocks?rank={rank}"
        lines = (await self._get(url, bounded.ENGINE_BLOCKS, self._token)).splitlines()
        blocks = (_decode(line, EngineBlock, debug_url) for line in lines if line)
        return (block for block in blocks if block.rank == rank)

    async def metrics(self, http_url: str) -> str:
        """The text of `/metrics`."""
        return (await self._get(f"{http_url}/metrics", bounded.ENGINE_METRICS)).decode(errors="replace")

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _get(self, url: str, bound: Bound, token: str | None = None) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=guarded_connector(self._connections))
        try:
            async with fetched(self._session, url, bound, token) as (response, data):
                pass
        except (TimeoutError, aiohttp.ClientError, OSError, OversizeError) as error:
            raise AuditError(f"{url}: {type(error).__name__}: {error}") from None
        if response.status != 200:
            raise AuditError(f"{url}: HTTP {response.status}")
        return data


def _decode(data: bytes, kind: type[_T], url: str) -> _T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise AuditError(f"{url}: not the answer of a debug endpoint: {error}") from None
