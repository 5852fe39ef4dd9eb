"""The audit: does the index hold exactly the blocks that the engine's own table holds?

`auditor` decides when and whom to compare, `engine` reads an engine's `/debug` endpoints, and `comparing` is the pure
comparison of two tables. For engines without such endpoints there are only the sums of `kvsync_indexer.prediction`.
"""

from kvsync_indexer.audit.auditor import Auditor

__all__ = ["Auditor"]
