"""ZMQ ingest: one I/O thread that follows any number of publishers and feeds the index core.

`thread` owns the selector and takes commands from other threads, `link` owns the sockets of one publisher, and
`sockets` sets ZMQ options and reads messages. All decisions are made by `kvsync_indexer.sync.Follower`.
"""

from kvsync_indexer.ingest.in_flight import InFlight, temporary_directory
from kvsync_indexer.ingest.link import PublisherLink
from kvsync_indexer.ingest.sockets import CurveKeys, SocketSettings
from kvsync_indexer.ingest.thread import Ingest

__all__ = ["CurveKeys", "InFlight", "Ingest", "PublisherLink", "SocketSettings", "temporary_directory"]
