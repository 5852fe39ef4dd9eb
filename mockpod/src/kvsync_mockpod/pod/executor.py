"""The executor of a live pod: returns the tokens of planned answers."""

from typing import cast

from kvsync_mockpod.engine import Executor, Request
from kvsync_mockpod.pod.generation import LiveRequest
from kvsync_mockpod.text import TextModel


class TextExecutor(Executor):
    """Samples from a `TextModel`; every request is a `LiveRequest`."""

    def __init__(self, model: TextModel) -> None:
        self._token = model.token

    def sample(self, request: Request, index: int) -> int:
        """Token `index` of the request's answer."""
        return self._token(cast("LiveRequest", request).answer, index)
