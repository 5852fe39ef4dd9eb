"""The executor that plays a scripted schedule."""

import zlib

from kvsync_mockpod.engine import Executor, Request
from kvsync_mockpod.scenario.model import Scenario
from kvsync_mockpod.scenario.tokens import token


class ScriptedExecutor(Executor):
    """Returns the scripted outputs: `output_token_ids`, EOS at `eos_at`, and generated tokens beyond."""

    def __init__(self, scenario: Scenario) -> None:
        self._vocab = scenario.config.vocab_size
        self._eos = scenario.config.eos_token_id
        self._script = {r.request.request_id: r for r in scenario.requests}
        self._stream = {i: (1 << 48) + zlib.crc32(i.encode()) for i in self._script}

    def sample(self, request: Request, index: int) -> int:
        """The scripted token at `index`."""
        script = self._script[request.request_id]
        if script.eos_at == index:
            return self._eos
        given = script.output_token_ids
        if given is not None and index < len(given):
            return given[index]
        return token(self._stream[request.request_id], index, self._vocab)
