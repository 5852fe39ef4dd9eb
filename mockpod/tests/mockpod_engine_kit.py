"""Builders for engine tests: a scripted executor (token table, EOS, failing steps) and a driver on virtual time."""

from dataclasses import dataclass, field

from kvsync_mockpod.engine import (
    Engine,
    EngineConfig,
    Executor,
    Request,
    RequestFailedError,
    StepFailedError,
)

EOS = 2
FIRST = 1000
"""The smallest token id of the table."""


class TableExecutor(Executor):
    """Returns outputs from a table by request, with EOS at a chosen index; whole steps or single requests can be made
    to fail.
    """

    def __init__(self, table=None, eos_at=None, fail_steps=(), fail_requests=()):
        self.table = table or {}
        self.eos_at = eos_at or {}
        self.fail_steps = list(fail_steps)
        self.fail_requests = set(fail_requests)
        self.attempts = 0

    def sample(self, request, index):
        if self.eos_at.get(request.request_id) == index:
            return EOS
        given = self.table.get(request.request_id, ())
        if index < len(given):
            return given[index]
        return FIRST + (hash_text(request.request_id) + 31 * index) % 20_000

    def admit(self, request):
        if request.request_id in self.fail_requests:
            raise RequestFailedError(f"prefill of {request.request_id} failed")

    def begin_step(self, step, request_ids):
        self.attempts += 1
        if self.fail_steps and self.attempts - 1 in self.fail_steps:
            raise StepFailedError(f"attempt {self.attempts - 1} failed")


def hash_text(text):
    """A number computed from a text, the same in every process."""
    return sum((i + 1) * ord(c) for i, c in enumerate(text))


def config(**values):
    defaults = {
        "num_gpu_blocks": 257,
        "max_model_len": 1024,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 128,
        "async_scheduling": False,
        "hash_algo": "sha256_cbor",
        "hash_seed": "0",
    }
    return EngineConfig.build(**(defaults | values))


def tokens(stream, n, first=0):
    """A deterministic prompt; prompts of different streams differ in every block."""
    return [20_000 + (stream * 7919 + i * 104_729) % 100_000 for i in range(first, first + n)]


def request(rid, n=20, max_tokens=4, stream=None, **values):
    prompt = tokens(hash_text(rid) if stream is None else stream, n)
    return Request(rid, prompt, max_tokens, **values)


@dataclass
class Outcome:
    tokens: list = field(default_factory=list)
    token_times: list = field(default_factory=list)
    reason: str | None = None
    finished_s: float | None = None
    cached_tokens: int = 0
    error: str | None = None
    arrived_s: float = 0.0


class Run:
    """Drives an engine in virtual time: submits requests at their arrival times and records every step."""

    def __init__(self, engine):
        self.engine = engine
        self.now = 0.0
        self.steps = []
        self.outcomes = {}
        self.events = []

    def add(self, *requests):
        for r in requests:
            assert r.request_id not in self.outcomes
            self.engine.add_request(r)
            self.outcomes[r.request_id] = Outcome(arrived_s=self.now)

    def step(self):
        result = self.engine.step(self.now)
        self.now += result.duration_s
        self.steps.append(result)
        self.events += result.events
        for output in result.outputs:
            outcome = self.outcomes[output.request_id]
            assert outcome.reason is None, "output after the end"
            outcome.tokens += output.new_token_ids
            outcome.token_times += [self.now] * len(output.new_token_ids)
            outcome.cached_tokens = output.cached_tokens
            outcome.error = output.error
            if output.finish_reason is not None:
                outcome.reason, outcome.finished_s = output.finish_reason, self.now
        return result

    def until_idle(self, limit=100_000):
        while self.engine.has_work():
            self.step()
            assert len(self.steps) < limit, "the engine does not end"
        return self


def run(requests, *, executor=None, latency=None, **values):
    """Submit all requests, run to the end and return the record."""
    engine = Engine(config(**values), executor or TableExecutor(), latency)
    driver = Run(engine)
    driver.add(*requests)
    return driver.until_idle()


def scheduled(steps, rid):
    """The steps in which a request was scheduled."""
    return [r.step for r in steps if rid in dict(r.scheduled)]
