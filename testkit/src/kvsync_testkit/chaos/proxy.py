"""A TCP proxy that delays each direction. It changes what the application sees, not the dynamics of TCP underneath."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any


class DelayProxy:
    """Forwards connections to one address, each byte `delay_s` seconds after it came; runs in a thread of its own."""

    def __init__(self, host: str, target: tuple[str, int]) -> None:
        self.delay_s = 0.0
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="delay-proxy")
        self._thread.start()
        server = self._run(asyncio.start_server(self._serve, host, 0))
        self.port: int = server.sockets[0].getsockname()[1]
        self._server = server

    def _run(self, work: Coroutine[Any, Any, asyncio.Server]) -> asyncio.Server:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        ways = [
            asyncio.create_task(self._forward(reader, far_writer)),
            asyncio.create_task(self._forward(far_reader, writer)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        writer.close()
        far_writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read and write at the same time, so that a delay does not limit the throughput."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(4096)
        sender = asyncio.create_task(self._send(queue, writer))
        try:
            while data := await reader.read(65536):
                await queue.put((self._loop.time() + self.delay_s, data))
            await queue.put((self._loop.time() + self.delay_s, b""))
            await sender
        except OSError:
            pass
        finally:
            sender.cancel()

    async def _send(self, queue: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while True:
                due, data = await queue.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                if not data:
                    return
                writer.write(data)
                await writer.drain()

    def close(self) -> None:
        """Accept no more connections and end the thread."""
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
