"""Keeps the table of endpoints up to date: which there are, which models they serve, and which of them work.

One loop reads the directory and asks endpoints for their models. Another asks the endpoints in the rotation for their
health, so that one that accepts connections and answers nothing leaves it. A third asks those that are out of it, and
returns them when they answer. A directory that announces changes is also read at each of them.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import structlog

from kvsync_router.config import RouterConfig
from kvsync_router.decisions.endpoints import Endpoint, EndpointTable
from kvsync_router.errors import DirectoryUnavailableError, ModelsUnreadableError
from kvsync_router.sources.directory import Directory, WatchedDirectory
from kvsync_router.sources.models import ListedModel, models_in, read_list

_log = structlog.get_logger("kvsync_router.health")

MODELS_REFRESH_EVERY = 5
"""Endpoints are asked for their models on every fifth refresh, because adapters are added and removed."""
EARLY_S = (0.1, 0.1, 0.2)
"""Pauses before the first refreshes."""
_REFUSED = (401, 403)
_FAILURES = (TimeoutError, aiohttp.ClientError, OSError, ValueError)


class EndpointKeeper:
    """Runs the loops from `start` to `stop`."""

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
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Read the directory, then start the loops."""
        self._follow()
        await self.refresh()
        config = self._config
        self._tasks = [
            asyncio.create_task(self._refresh_early()),
            asyncio.create_task(self._every(config.refresh_s, self.refresh)),
            asyncio.create_task(self._every(config.probe_s, self.probe)),
            asyncio.create_task(self._every(config.health_s, self.check)),
            asyncio.create_task(self._read_changes()),
        ]

    async def stop(self) -> None:
        """End the loops."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if isinstance(self._directory, WatchedDirectory):
            await asyncio.to_thread(self._directory.stop)

    def _follow(self) -> None:
        """Have the directory read again whenever it announces a change."""
        if not isinstance(self._directory, WatchedDirectory):
            return
        loop = asyncio.get_running_loop()

        def announced() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended before the watch
                loop.call_soon_threadsafe(self._changed.set)

        self._directory.start(announced)

    async def _read_changes(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._read()

    async def _every(self, period_s: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(period_s)
            try:
                await work()
            except Exception:  # noqa: BLE001  a defect must not end the loop
                _log.exception("router_upkeep_failed")

    async def _refresh_early(self) -> None:
        """Read the directory more often at first: it may still be learning of the endpoints when the router starts."""
        for pause_s in EARLY_S:
            await asyncio.sleep(pause_s)
            await self.refresh()

    async def refresh(self) -> None:
        """Read the directory, and ask endpoints for their models if that is due."""
        await self._read()
        due = self._rounds % MODELS_REFRESH_EVERY == 0
        self._rounds += 1
        asked = [endpoint for endpoint in self._table.all() if endpoint.healthy and (due or not endpoint.models)]
        await asyncio.gather(*(self.fetch_models(endpoint) for endpoint in asked))

    async def _read(self) -> None:
        try:
            self._table.update(await self._directory.endpoints())
        except DirectoryUnavailableError as error:
            _log.debug("endpoints_kept", reason=str(error))

    async def learn_models(self, model: str, authorization: str) -> None:
        """Ask endpoints that list their models only to clients with a key whether they serve `model`.

        Nothing is learned from an engine that refuses the client's key.
        """
        asked = [
            endpoint
            for endpoint in self._table.all()
            if endpoint.healthy and endpoint.wants_key and not endpoint.serves(model)
        ]
        await asyncio.gather(*(self.fetch_models(endpoint, authorization) for endpoint in asked))

    async def fetch_models(self, endpoint: Endpoint, authorization: str | None = None) -> list[ListedModel] | None:
        """The models that the engine lists; None if it lists none. What it lists is remembered.

        The question carries the client's `authorization` or, without it, the key that the router has for the engine. An
        endpoint that accepts no connection leaves the rotation.
        """
        headers = _authorized(authorization) or self._own_key(endpoint)
        try:
            async with (
                asyncio.timeout(self._config.connect_timeout_s),
                self._session().get(
                    f"{endpoint.info.url}/v1/models", headers=headers, allow_redirects=False
                ) as response,
            ):
                if authorization is None:
                    endpoint.wants_key = response.status in _REFUSED
                if response.status != 200:
                    return None
                models = models_in(await read_list(response.content))
        except aiohttp.ClientConnectorError:
            self._table.mark_down(endpoint)
            return None
        except (*_FAILURES, ModelsUnreadableError):
            return None
        endpoint.models = {model.id: model.parent for model in models}
        lengths = [model.max_model_len for model in models if model.max_model_len and model.max_model_len > 0]
        endpoint.max_model_len = max(lengths, default=None)
        return models

    async def check(self) -> None:
        """Ask every endpoint in the rotation for its health."""
        up = [endpoint for endpoint in self._table.all() if endpoint.healthy]
        await asyncio.gather(*(self._check_one(endpoint) for endpoint in up))

    async def _check_one(self, endpoint: Endpoint) -> None:
        well = await self._is_well(endpoint, self._config.health_timeout_s)
        if self._table.checked(endpoint, well=bool(well), allowed=self._config.health_failures):
            _log.warning("endpoint_left_rotation", endpoint=endpoint.info.name, reason="no answer to /health")

    async def probe(self) -> None:
        """Ask every endpoint that is out of the rotation for its health."""
        down = [endpoint for endpoint in self._table.all() if not endpoint.healthy]
        await asyncio.gather(*(self._probe_one(endpoint) for endpoint in down))

    async def _probe_one(self, endpoint: Endpoint) -> None:
        well = await self._is_well(endpoint, self._config.connect_timeout_s)
        if well:
            self._table.mark_up(endpoint)
            _log.info("endpoint_recovered", endpoint=endpoint.info.name)
        elif well is None and not endpoint.hangs:
            endpoint.leave(hangs=True)

    async def _is_well(self, endpoint: Endpoint, timeout_s: float) -> bool | None:
        """Whether the engine answers `/health`; None if it does not react at all.

        One that has no such path or wants a key for it answers as well.
        """
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._session().get(
                    f"{endpoint.info.url}/health", headers=self._own_key(endpoint), allow_redirects=False
                ) as response,
            ):
                return response.status < 500
        except TimeoutError:
            return None
        except _FAILURES:
            return False

    def _own_key(self, endpoint: Endpoint) -> dict[str, str]:
        key = endpoint.info.api_key
        if key is None and self._config.engine_api_key is not None:
            key = self._config.engine_api_key.get_secret_value()
        return _authorized(None if key is None else f"Bearer {key}")


def _authorized(authorization: str | None) -> dict[str, Any]:
    return {} if authorization is None else {"authorization": authorization}
