"""The sync prefix-hash index: `kvsync-indexer` as a service, `PrefixIndex` as a library.

- `core/`: who holds what: one Protocol, pure Python and native
- `sync/`: the publisher state machine, without I/O
- `ingest/`: the thread that owns the event sockets
- `discovery/`: which publishers there are: a file, or the Kubernetes API
- `service/`: the HTTP API, audit/ the comparison with engines, snapshot/ what outlives a restart
- `router/`: an OpenAI proxy that asks the index
- `library.py`: the calls of AIBrix's sync prefix hash table
"""

from kvsync_indexer.library import PrefixIndex, PrefixMatch

__all__ = ["PrefixIndex", "PrefixMatch"]
