"""Where a picker's endpoints come from: an InferencePool, a publishers file, or the publishers of an index.

A further source is a `Directory` of its own, chosen here.
"""

from collections.abc import Sequence
from pathlib import Path

import structlog

from kvsync_indexer.errors import ConfigError
from kvsync_router.errors import RouterConfigError
from kvsync_router.sources.directory import Directory, FileDirectory
from kvsync_router.sources.pool import PoolDirectory, PoolSource

_log = structlog.get_logger("kvsync_router.picker")


def choose_directory(
    index_urls: Sequence[str], publishers: Path | None, pool: str | None = None, namespace: str | None = None
) -> Directory | None:
    """The source that the flags name; None for the index. Raises RouterConfigError.

    A publishers file is for where there is no Kubernetes, so with one the pool is a mere name, as `--pool-name` is for
    the reference picker's users outside of a cluster. An index lists the endpoints if there is no API server to ask.
    """
    if publishers is not None:
        directory = FileDirectory(publishers)
        directory.read()
        return directory
    if pool is not None:
        try:
            return PoolDirectory(follow_pool("--pool-name", pool, namespace))
        except RouterConfigError as error:
            if not index_urls:
                raise
            _log.warning("pool_not_followed", pool=pool, problem=str(error), endpoints="those of the index")
            return None
    if not index_urls:
        raise RouterConfigError("give --index-url, --pool-name or --publishers: the picker has no endpoints without")
    return None


def follow_pool(flag: str, pool: str, namespace: str | None) -> PoolSource:
    """A follower of an InferencePool, in the namespace of the process unless another is named.

    Raises RouterConfigError, which names `flag`, if there are no credentials for the API server.
    """
    from kvsync_indexer.pools import PoolFollower  # the client of Kubernetes is large

    try:
        return PoolFollower(pool, namespace, flag=flag)
    except ConfigError as error:
        raise RouterConfigError(str(error)) from None
