"""Runs planned pods: writes their files, starts their processes, and restarts those that end, with a back-off."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import aiohttp

from kvsync.local.pods import LocalPod
from kvsync.local.supervisor import Supervisor, wait_http
from kvsync.report.files import write_whole

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0
CALM_S = 30.0
"""After a process has run for this long, the pause before its next restart is the first one again."""
CHECK_S = 0.1


@dataclass(slots=True)
class PodState:
    """The state of one pod."""

    pod: LocalPod
    ready: bool = False
    restarts: int = 0
    reason: str = ""
    pause_s: float = FIRST_PAUSE_S
    started_at: float = 0.0


class LocalCluster:
    """The pods of one run, by name."""

    def __init__(
        self,
        pods: Sequence[LocalPod],
        supervisor: Supervisor,
        session: aiohttp.ClientSession,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.states = {pod.name: PodState(pod) for pod in pods}
        self._supervisor = supervisor
        self._session = session
        self._clock = clock

    async def start(self) -> None:
        """Write the files, start every process and wait until all are ready. Raises StartFailedError."""
        for state in self.states.values():
            for path, text in state.pod.files.items():
                write_whole(path, text)
            state.started_at = self._clock()
            self._supervisor.start(state.pod.spec)
        for state in self.states.values():
            await self.wait_ready(state.pod)

    async def wait_ready(self, pod: LocalPod) -> None:
        """Wait until the pod is ready. Raises StartFailedError."""
        await wait_http(self._session, self._supervisor[pod.name], pod.health_url)
        self.states[pod.name].ready = True

    async def keep_running(self, left_alone: Collection[str] = ()) -> None:
        """Restart every process that ends, for ever. `left_alone` names pods to skip, and may change meanwhile."""
        async with asyncio.TaskGroup() as group:
            for state in self.states.values():
                group.create_task(self._keep(state, left_alone))

    async def _keep(self, state: PodState, left_alone: Collection[str]) -> None:
        process = self._supervisor[state.pod.name]
        while True:
            await asyncio.sleep(CHECK_S)
            if process.running or state.pod.name in left_alone:
                state.ready = state.ready or await self._answers(state.pod)
                continue
            state.ready, state.reason = False, process.explain()
            if self._clock() - state.started_at > CALM_S:
                state.pause_s = FIRST_PAUSE_S
            await asyncio.sleep(state.pause_s)
            state.pause_s = min(state.pause_s * 2, LONGEST_PAUSE_S)
            state.restarts += 1
            state.started_at = self._clock()
            process.start()

    async def _answers(self, pod: LocalPod) -> bool:
        try:
            async with self._session.get(pod.health_url, timeout=aiohttp.ClientTimeout(total=2)) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
