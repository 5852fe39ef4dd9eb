"""Keeps the table of endpoints up to date: which there are, which models they serve, and which have recovered.

One loop reads the directory and asks endpoints for their models. Another asks the endpoints that are out of the
rotation for their health, and returns them to it when they answer.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import aiohttp
import msgspec
import structlog

from kvsync_router.config import RouterConfig
from kvsync_router.decisions.endpoints import Endpoint, EndpointTable
from kvsync_router.errors import DirectoryUnavailableError
from kvsync_router.sources.directory import Directory

_log = structlog.get_logger("kvsync_router.health")

MODELS_REFRESH_EVERY = 5
"""Endpoints are asked for their models on every fifth refresh, because adapters are added and removed."""


class _Model(msgspec.Struct):
    id: str
    parent: str | None = None


class _Models(msgspec.Struct):
    data: list[_Model]


class EndpointKeeper:
    """Runs both loops from `start` to `stop`."""

    def __init__(
        self,
        config: RouterConfig,
        table: EndpointTable,
        directory: Directory,
        session: Callable[[], aiohttp.ClientSession],
    ) -> None:
        self._config = config
        self._table = table
        self._directory = directory
        self._session = session
        self._tasks: list[asyncio.Task[None]] = []
        self._rounds = 0

    async def start(self) -> None:
        """Read the directory, then start the loops."""
        await self.refresh()
        self._tasks = [
            asyncio.create_task(self._every(self._config.refresh_s, self.refresh)),
            asyncio.create_task(self._every(self._config.probe_s, self.probe)),
        ]

    async def stop(self) -> None:
        """End both loops."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _every(self, period_s: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(period_s)
            try:
                await work()
            except Exception:  # noqa: BLE001  a defect must not end the loop
                _log.exception("router_upkeep_failed")

    async def refresh(self) -> None:
        """Read the directory, and ask endpoints for their models if that is due."""
        try:
            self._table.update(await self._directory.endpoints())
        except DirectoryUnavailableError as error:
            _log.debug("endpoints_kept", reason=str(error))
        due = self._rounds % MODELS_REFRESH_EVERY == 0
        self._rounds += 1
        asked = [endpoint for endpoint in self._table.all() if endpoint.healthy and (due or not endpoint.models)]
        await asyncio.gather(*(self._ask_models(endpoint) for endpoint in asked))

    async def _ask_models(self, endpoint: Endpoint) -> None:
        models = await self.fetch_models(endpoint)
        if models is not None:
            decoded = msgspec.json.decode(models, type=_Models)
            endpoint.models = {model.id: model.parent for model in decoded.data}

    async def fetch_models(self, endpoint: Endpoint, headers: Mapping[str, str] | None = None) -> bytes | None:
        """The body of `/v1/models`, or None. An endpoint that accepts no connection leaves the rotation."""
        try:
            async with (
                asyncio.timeout(self._config.connect_timeout_s),
                self._session().get(f"{endpoint.info.url}/v1/models", headers=headers) as response,
            ):
                if response.status != 200:
                    return None
                body = await response.read()
                msgspec.json.decode(body, type=_Models)
                return body
        except aiohttp.ClientConnectorError:
            self._table.mark_down(endpoint)
        except (TimeoutError, aiohttp.ClientError, OSError, msgspec.MsgspecError):
            pass
        return None

    async def probe(self) -> None:
        """Ask every endpoint that is out of the rotation for its health."""
        down = [endpoint for endpoint in self._table.all() if not endpoint.healthy]
        await asyncio.gather(*(self._probe_one(endpoint) for endpoint in down))

    async def _probe_one(self, endpoint: Endpoint) -> None:
        try:
            async with (
                asyncio.timeout(self._config.connect_timeout_s),
                self._session().get(f"{endpoint.info.url}/health") as response,
            ):
                if response.status == 200:
                    self._table.mark_up(endpoint)
                    _log.info("endpoint_recovered", endpoint=endpoint.info.name)
        except (TimeoutError, aiohttp.ClientError, OSError):
            return
