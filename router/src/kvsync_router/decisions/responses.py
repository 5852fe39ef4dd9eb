"""Which engine stored which response of `/v1/responses`.

An engine keeps its responses in its own memory. A request that continues, reads or cancels one has to go there.
"""

import re
from collections import OrderedDict
from typing import Final

MOST: Final = 4096
"""Responses that are remembered; the oldest is forgotten."""
_ID: Final = re.compile(rb'"id"\s*:\s*"(resp_[A-Za-z0-9_-]{1,128})"')
_BEGINNING_BYTES: Final = 4096


class ResponseHomes:
    """Endpoints by the id of a response."""

    def __init__(self) -> None:
        self._endpoints: OrderedDict[str, str] = OrderedDict()

    def learn(self, first_bytes: bytes, endpoint: str) -> None:
        """Remember the response whose answer begins so, whether it is streamed or not."""
        found = _ID.search(first_bytes, 0, _BEGINNING_BYTES)
        if found is not None:
            self._endpoints[found[1].decode()] = endpoint
            if len(self._endpoints) > MOST:
                self._endpoints.popitem(last=False)

    def get(self, response: str | None) -> str | None:
        """The endpoint that answered with this response, if it is remembered."""
        return None if response is None else self._endpoints.get(response)
