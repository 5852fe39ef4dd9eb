"""Runs a pod: opens all sockets before it reports itself ready, serves, and shuts down on SIGTERM or SIGINT.

During shutdown new work is refused with 503. Requests in flight get `mock_drain_timeout` seconds, after which they are
aborted. Then the last event batch is published, the sockets are closed and the process exits with code 0. A second
signal ends the wait at once.
"""

import asyncio
import contextlib
import resource
import signal
import socket
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import uvicorn
import uvloop

from kvsync_mockpod.config import PodConfig
from kvsync_mockpod.engine import LatencyModel
from kvsync_mockpod.errors import StartError
from kvsync_mockpod.http.app import Application
from kvsync_mockpod.http.wrappers import wrap
from kvsync_mockpod.logs import configure_logging, get_logger
from kvsync_mockpod.pod import Environment, Pod
from kvsync_mockpod.tls import tls_settings

_log = get_logger(__name__)
_BACKLOG = 4096
_DESCRIPTORS = 65_536


@dataclass(frozen=True, slots=True)
class WithoutEffect:
    """What was given and has no effect; each kind is named in one log line."""

    flags: Sequence[str] = ()
    variables: Sequence[str] = ()
    unknown: Sequence[str] = ()
    """Variables that look like vLLM's and are not, perhaps because they are misspelt."""


def bind_http(host: str, port: int) -> socket.socket:
    """Bind and listen.

    Raises:
        StartError: the address is in use or does not belong to this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise StartError(f"HTTP: {host}:{port}: {error.strerror}") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise StartError(f"HTTP: {host}:{port}: {error.strerror}") from None
    listener.setblocking(False)
    return listener


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signal handling to this module."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def serve(pod: Pod, listener: socket.socket, stop: asyncio.Event, on_ready: Callable[[], None]) -> None:
    """Serve until `stop` is set, then drain and close. The pod must be open and not yet started."""
    pod.start()
    settings = uvicorn.Config(
        cast("Any", wrap(Application(pod), pod.config)),
        **tls_settings(pod.config),
        loop="none",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=5,
    )
    server = _Server(settings)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started and not serving.done():  # noqa: ASYNC110
            await asyncio.sleep(0.001)  # uvicorn reports it by an attribute only
        if not serving.done():
            on_ready()
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        await _drain(pod, stop)
    finally:
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        await pod.stop()


async def _drain(pod: Pod, stop: asyncio.Event) -> None:
    """Drain the pod; if `stop` is set again by a second signal, abort what is left at once."""
    _log.info("draining", requests=sum(rank.load for rank in pod.ranks), timeout_s=pod.config.mock_drain_timeout)
    stop.clear()
    again = asyncio.create_task(stop.wait())
    draining = asyncio.create_task(pod.drain(pod.config.mock_drain_timeout))
    await asyncio.wait({again, draining}, return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():
        draining.cancel()
        await asyncio.gather(draining, return_exceptions=True)
        await pod.drain(0.0)
    again.cancel()


async def _main(pod: Pod, listener: socket.socket) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    host, port = listener.getsockname()[:2]

    def on_ready() -> None:
        _log.info(
            "ready",
            http=f"{'http' if pod.config.ssl_certfile is None else 'https'}://{host}:{port}",
            model=pod.config.names[0],
            vllm_version=pod.version,
            ranks=[
                {"rank": rank.rank, "events": rank.publisher.endpoint, "replay": rank.publisher.replay_endpoint}
                for rank in pod.ranks
            ],
        )

    await serve(pod, listener, stop, on_ready)
    _log.info("stopped")


def _raise_descriptor_limit() -> None:
    """Raise the limit of open files to the maximum: every connection needs a descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, _DESCRIPTORS) if hard != resource.RLIM_INFINITY else _DESCRIPTORS
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def run_pod(
    config: PodConfig,
    environment: Environment,
    latency: Callable[[int], LatencyModel | None],
    without_effect: WithoutEffect,
) -> None:
    """Run a pod until it receives a signal.

    Raises:
        ConfigError: the configuration is invalid.
        StartError: a socket cannot be opened. Both are raised before anything is served.
    """
    _raise_descriptor_limit()
    tls_settings(config)
    pod = Pod(config, environment, latency=latency)
    listener = bind_http(config.host, config.port)
    try:
        pod.open()
    except BaseException:
        listener.close()
        raise
    configure_logging()
    if without_effect.flags:
        _log.info("flags_ignored", flags=list(without_effect.flags))
    if without_effect.variables:
        _log.info("variables_ignored", variables=list(without_effect.variables))
    if without_effect.unknown:
        _log.warning("variables_unknown", variables=list(without_effect.unknown))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(pod, listener))
