"""The OpenAI-compatible proxy in front of the engines.

`app` is the ASGI application with all of its paths, `proxy` serves one inference request, `upstream` is one attempt at
an endpoint, and `main` the command `kvsync-router`.
"""

from kvsync_router.proxy.app import ProxyApp

__all__ = ["ProxyApp"]
