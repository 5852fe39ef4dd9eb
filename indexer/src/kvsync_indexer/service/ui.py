"""The web page at `/ui`: plain files of this package, served with a policy under which nothing else can run.

The page asks the HTTP API as any client does. Its files hold no data, so they need no token, and they name every
address relative to their own, so the page works behind a path prefix.
"""

import hashlib
from functools import cache
from importlib import resources
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from kvsync_indexer.errors import RequestError

_TYPES: Final = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing inline and nothing from elsewhere: a publisher's name that got into the page as HTML would stay inert."""
_HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def ui_routes() -> list[Route]:
    """The routes of the page and its files."""
    return [Route("/ui", _page), Route("/ui/", _slash), Route("/ui/{name}", _file)]


@cache
def _files() -> dict[str, tuple[bytes, str]]:
    """The page's files by name, each with its entity tag."""
    folder = resources.files("kvsync_indexer.service") / "page"
    files = {each.name: each.read_bytes() for each in folder.iterdir() if each.name.rpartition(".")[2] in _TYPES}
    return {name: (data, f'"{hashlib.sha256(data).hexdigest()[:32]}"') for name, data in files.items()}


async def _page(request: Request) -> Response:
    return _serve(request, "index.html")


async def _slash(_request: Request) -> Response:
    return RedirectResponse("../ui", 308)


async def _file(request: Request) -> Response:
    return _serve(request, request.path_params["name"])


def _serve(request: Request, name: str) -> Response:
    known = _files().get(name)
    if known is None:
        raise RequestError(404, "no such path")
    data, tag = known
    headers = {**_HEADERS, "etag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=_TYPES[name.rpartition(".")[2]], headers=headers)
