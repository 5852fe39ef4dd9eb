"""What takes bytes from one side of a transfer to the other: a file, a shared memory segment, a TCP connection."""

import socket
import threading
from collections.abc import Sequence
from typing import Final, Protocol

from kvsync_testkit.errors import TransferError
from kvsync_testkit.physical.files import DiskRegion
from kvsync_testkit.physical.regions import Region
from kvsync_testkit.physical.shared import SharedRegion

_TIMEOUT_S: Final = 30.0


class Carrier(Protocol):
    """One way of moving bytes."""

    def carry(self, parts: Sequence[bytes]) -> list[bytes]:
        """The parts as they come out on the other side, in the same order and of the same lengths.

        Raises:
            TransferError: not all bytes arrived.
        """
        ...


class PosixCarrier:
    """Through a file: pwrite, fsync, pread."""

    def carry(self, parts: Sequence[bytes]) -> list[bytes]:
        """As `Carrier`."""
        with DiskRegion(_total(parts)) as file:
            _write_all(file, parts)
            file.flush()
            return _read_all(file, parts)


class SharedMemoryCarrier:
    """Through a shared memory segment that is mapped twice, as sender and receiver would."""

    def carry(self, parts: Sequence[bytes]) -> list[bytes]:
        """As `Carrier`."""
        with SharedRegion(max(_total(parts), 1)) as sender, sender.attach() as receiver:
            _write_all(sender, parts)
            return _read_all(receiver, parts)


class TcpCarrier:
    """Through a TCP connection over loopback; a thread sends while this one receives."""

    def carry(self, parts: Sequence[bytes]) -> list[bytes]:
        """As `Carrier`."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(_TIMEOUT_S)
            sender = socket.create_connection(server.getsockname(), timeout=_TIMEOUT_S)
            thread = threading.Thread(target=_send_all, args=(sender, parts), name="kvsync-tcp-carrier")
            thread.start()
            try:
                receiver, _ = server.accept()
                with receiver:
                    receiver.settimeout(_TIMEOUT_S)
                    return [_receive_exactly(receiver, len(part)) for part in parts]
            except OSError as error:
                raise TransferError(f"TCP transfer over loopback: {error}") from error
            finally:
                sender.close()
                thread.join()


def _send_all(sender: socket.socket, parts: Sequence[bytes]) -> None:
    try:
        with sender:
            for part in parts:
                sender.sendall(part)
    except OSError:
        return  # the receiver sees the connection end early and reports it


def _receive_exactly(receiver: socket.socket, length: int) -> bytes:
    data = bytearray(length)
    view, got = memoryview(data), 0
    while got < length:
        count = receiver.recv_into(view[got:])
        if not count:
            raise TransferError(f"the connection ended after {got} of {length} bytes")
        got += count
    return bytes(data)


def _total(parts: Sequence[bytes]) -> int:
    return sum(len(part) for part in parts)


def _write_all(region: Region, parts: Sequence[bytes]) -> None:
    offset = 0
    for part in parts:
        region.write(offset, part)
        offset += len(part)


def _read_all(region: Region, parts: Sequence[bytes]) -> list[bytes]:
    out, offset = [], 0
    for part in parts:
        out.append(region.read(offset, len(part)))
        offset += len(part)
    return out
