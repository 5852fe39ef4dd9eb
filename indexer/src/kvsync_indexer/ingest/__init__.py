"""ZMQ ingest: one I/O thread that follows any number of publishers and feeds the index core.

`thread` owns the selector and the commands, `link` drives one publisher's machine, `sockets` holds ZMQ options,
`latency` counts how late events are. Decisions are all in `kvsync_indexer.sync`.
"""

from kvsync_indexer.ingest.latency import LatencyHistogram
from kvsync_indexer.ingest.link import PublisherLink
from kvsync_indexer.ingest.sockets import SocketSettings
from kvsync_indexer.ingest.thread import Ingest

__all__ = ["Ingest", "LatencyHistogram", "PublisherLink", "SocketSettings"]
