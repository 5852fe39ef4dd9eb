"""Requests and replies between leaders over a transport.

Every leader serves requests of its peers in the order of arrival while it waits for its own replies. Handlers do not
wait, so serving one request at a time is enough and bounds what is in memory to one reply.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from kvsync_testkit.distributed.protocol import Refused, Reply, Request
from kvsync_testkit.errors import KitError, SessionClosedError, SessionError, TransportError
from kvsync_testkit.transport import AsyncTransport

_REQUEST: Final = b"request"
_REPLY: Final = b"reply"
_TIMEOUT_S: Final = 10.0

Answer = tuple[Reply, Sequence[bytes]]
Handler = Callable[[str, Request], Answer]
"""Called with the peer's name and its request; gives the reply and the frames that go with it."""


class Channel:
    """One leader's end. Started inside a running loop; `close` ends it.

    Attributes:
        transport: Carries the messages; its name is the leader's.
    """

    def __init__(self, transport: AsyncTransport, handler: Handler) -> None:
        self.transport = transport
        self._handler = handler
        self._waiting: dict[bytes, asyncio.Future[tuple[Reply, list[bytes]]]] = {}
        self._count = 0
        self._decode_request = msgspec.msgpack.Decoder(Request).decode
        self._decode_reply = msgspec.msgpack.Decoder(Reply).decode
        self._task = asyncio.create_task(self._serve(), name=f"channel of {transport.name}")

    async def call(self, peer: str, request: Request) -> tuple[Reply, list[bytes]]:
        """Send a request and wait for its reply and the frames that come with it.

        Raises:
            SessionClosedError, SessionError: the peer refused.
            TransportError: no reply in time, or this end is closed.
        """
        if self._task.done():
            raise TransportError(f"{self.transport.name} no longer answers")
        self._count += 1
        number = self._count.to_bytes(8, "big")
        future = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            await self.transport.send(_REQUEST, number, msgspec.msgpack.encode(request), to=peer)
            reply, parts = await asyncio.wait_for(future, _TIMEOUT_S)
        except TimeoutError:
            raise TransportError(f"{peer} did not answer {type(request).__name__} within {_TIMEOUT_S:g} s") from None
        finally:
            del self._waiting[number]
        if isinstance(reply, Refused):
            raise (SessionClosedError if reply.closed else SessionError)(reply.reason)
        return reply, parts

    async def close(self) -> None:
        """Stop serving; calls that wait for a reply raise TransportError.

        An unexpected error of a handler, which ended the serving early, is raised here.
        """
        self._task.cancel()
        (result,) = await asyncio.gather(self._task, return_exceptions=True)
        self._fail_waiting()
        self.transport.close()
        if isinstance(result, Exception):
            raise result

    async def _serve(self) -> None:
        try:
            while True:
                peer, (kind, number, body, *parts) = await self.transport.receive(timeout_s=None)
                if kind == _REQUEST:
                    await self._answer(peer, number, body)
                elif number in self._waiting and not self._waiting[number].done():
                    self._waiting[number].set_result((self._decode_reply(body), parts))
        finally:
            self._fail_waiting()

    async def _answer(self, peer: str, number: bytes, body: bytes) -> None:
        parts: Sequence[bytes] = ()
        reply: Reply
        try:
            reply, parts = self._handler(peer, self._decode_request(body))
        except KitError as error:
            reply = Refused(str(error), isinstance(error, SessionClosedError))
        await self.transport.send(_REPLY, number, msgspec.msgpack.encode(reply), *parts, to=peer)

    def _fail_waiting(self) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(TransportError(f"{self.transport.name} is closed"))
