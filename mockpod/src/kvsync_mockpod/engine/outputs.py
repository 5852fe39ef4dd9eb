"""Runs a batch on the executor and turns its tokens, finishes and failures into a step result."""

from kvsync_mockpod.engine.api import FinishReason, StepLoad, StepResult
from kvsync_mockpod.engine.errors import RequestFailedError, StepFailedError
from kvsync_mockpod.engine.scheduler import Batch
from kvsync_mockpod.engine.sequence import Sequence, Status
from kvsync_mockpod.engine.state import EngineState


class OutputStage:
    """Runs batches. A failed step is retried; when the retries are used up, its requests end with `error`."""

    def __init__(self, state: EngineState) -> None:
        self._state = state
        self.sampled: list[Sequence] = []
        """Sequences that received a token from the last batch."""

    def take(self, batch: Batch, result: StepResult) -> None:
        """Run a batch and add its outputs, finishes and failures to `result`."""
        self.sampled = []
        if not batch.chunks:
            return
        result.duration_s = self._batch_s(batch)
        error = self._run(batch, result)
        if error is not None:
            self._fail(batch, error, result)
            return
        stopped: set[Sequence] = set()
        sample = self._state.executor.sample
        for seq, tokens in batch.chunks.items():
            if seq.status is Status.FINISHED:
                continue
            seq.in_flight -= tokens
            stale = seq.stale > 0
            if stale:
                seq.stale -= tokens
                if seq.drop_stale:
                    continue
            index = batch.samples.get(seq)
            if index is None:
                continue
            try:
                token = sample(seq.request, index)
            except RequestFailedError as failure:
                self._drop(seq, str(failure), result)
                continue
            reason = self._append(seq, token, stale=stale)
            result.outputs.append(seq.make_output([token], reason))
            self.sampled.append(seq)
            if reason is not None:
                result.finished.append((seq.id, reason))
                stopped.add(seq)
        self._state.counts.generation_tokens += len(self.sampled)
        self._retire(stopped)

    def _append(self, seq: Sequence, token: int, *, stale: bool) -> FinishReason | None:
        """Append an output token; returns the finish reason if the token ends the sequence."""
        seq.output.append(token)
        seq.total += 1
        reason: FinishReason | None = None
        if token in seq.stops:
            reason = "stop"
        elif len(seq.output) >= seq.limit:
            reason = "length"
        if seq.placeholders and not stale:
            seq.placeholders -= 1
            if seq.status is Status.RUNNING:
                self._state.manager.cache(seq, seq.computed - seq.in_flight)
        if reason is not None:
            self._state.manager.release(seq)
        return reason

    def _retire(self, stopped: set[Sequence]) -> None:
        """Take ended sequences out of their queues."""
        if not stopped:
            return
        scheduler = self._state.scheduler
        for seq in stopped:
            if seq.status is not Status.RUNNING:
                scheduler.unqueue(seq)
            self._state.end(seq, "stop" if seq.output[-1] in seq.stops else "length")
        scheduler.running = [seq for seq in scheduler.running if seq not in stopped]

    def _run(self, batch: Batch, result: StepResult) -> str | None:
        """Let the executor run the batch, with retries; returns the error if all attempts failed."""
        ids = [seq.id for seq in batch.chunks]
        for attempt in range(self._state.config.step_retries + 1):
            try:
                self._state.executor.begin_step(result.step, ids)
            except StepFailedError as error:
                self._state.counts.step_failures += 1
                if attempt == self._state.config.step_retries:
                    return str(error) or "step failed"
                result.duration_s += self._batch_s(batch)
            else:
                return None
        return None

    def _fail(self, batch: Batch, error: str, result: StepResult) -> None:
        """End every sequence of a failed step, and retract the blocks that it announced but never computed."""
        for seq in reversed(batch.chunks):
            if seq.status is Status.FINISHED:
                continue
            if seq.status is Status.RUNNING:
                self._state.manager.retract(seq, seq.computed - seq.in_flight)
            self._drop(seq, error, result)
        result.finished.reverse()
        result.outputs.reverse()

    def _drop(self, seq: Sequence, error: str, result: StepResult) -> None:
        """End a sequence with an error and free its blocks at once."""
        self._state.scheduler.remove(seq)
        self._state.end(seq, "error")
        result.finished.append((seq.id, "error"))
        result.outputs.append(seq.make_output([], "error", error=error))

    def _batch_s(self, batch: Batch) -> float:
        if self._state.latency is None:
            return 0.0
        capacity = self._state.config.usable_blocks * self._state.config.block_size
        return self._state.latency.step_s(StepLoad(batch.prefill_tokens, batch.decode_seqs, batch.kv_tokens, capacity))
