"""The sync prefix-hash index: `kvsync-indexer` as a service, `PrefixIndex` as a library.

- `api/`: the requests and answers of the HTTP API, for the service and everything that asks it
- `core/`: which publisher holds which blocks; one Protocol, implemented in pure Python and in Rust (`native/`)
- `sync/`: the state machine of one publisher, without I/O
- `ingest/`: the thread that owns the event sockets
- `discovery/`: finds publishers through the Kubernetes API; `publishers_file.py` reads them from a file
- `service/`: the HTTP API and the process
- `audit/`: compares the index with the engines' own block tables
- `snapshot.py`: the file format of a snapshot, which outlives a restart
- `fronts.py`: the extension point for servers that run inside the index's process, such as the router
- `serving.py`: listening sockets, HTTP servers and signals, for the index and its fronts
- `library.py`: the calls of AIBrix's sync prefix hash table

The two public names are loaded when they are first used, so that importing `kvsync_indexer.api` stays cheap.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvsync_indexer.library import PrefixIndex, PrefixMatch

__all__ = ["PrefixIndex", "PrefixMatch"]


def __getattr__(name: str) -> object:
    """Load a public name from `kvsync_indexer.library`."""
    if name in __all__:
        from kvsync_indexer import library

        return getattr(library, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
