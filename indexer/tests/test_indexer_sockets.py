"""Socket options whose absence shows only after minutes of a fault."""

import zmq

from kvsync_indexer.ingest.sockets import EventSocket, SocketSettings
from kvsync_testkit.ports import free_port


def test_an_unanswered_connection_attempt_is_given_up():
    """Without a limit the kernel's back-off decides when a healed partition is noticed: 12 s after 20 s of one."""
    context = zmq.Context()
    events = EventSocket(context, f"tcp://127.0.0.1:{free_port()}", "", SocketSettings(), bind=False)
    try:
        assert events.socket.getsockopt(zmq.CONNECT_TIMEOUT) == 2000
    finally:
        events.close()
        context.destroy(linger=0)
