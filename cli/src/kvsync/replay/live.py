"""Replays a trace against a running OpenAI server: a router, a single engine, or a real vLLM."""

from collections import Counter
from collections.abc import Iterable

import aiohttp

from kvsync.load.client import MAX_IN_FLIGHT, Outcome, Replayer
from kvsync.load.vocabulary import Vocabulary
from kvsync.replay.failures import Failure
from kvsync.replay.limits import ServerLimits
from kvsync.replay.records import Record, ReplayResult
from kvsync_workload.prompts import Prompt

UNNAMED_WORKER = "target"


async def replay_live(
    session: aiohttp.ClientSession,
    url: str,
    limits: ServerLimits,
    prompts: Iterable[Prompt],
    max_in_flight: int | None,
) -> ReplayResult:
    """Send every prompt at its arrival time, with ids inside the vocabulary, and wait for all answers."""
    replayer = Replayer(
        session,
        url,
        limits.model,
        speed=1.0,
        max_in_flight=max_in_flight or MAX_IN_FLIGHT,
        vocabulary=Vocabulary(limits.vocabulary) if limits.vocabulary is not None else None,
    )
    outcomes = await replayer.run(prompts)
    records = [_record(outcome) for outcome in outcomes]
    workers = sorted({record.worker for record in records if record.ok})
    reissued = sum(outcome.issues > 1 for outcome in outcomes)
    return ReplayResult(records, Counter(round(gap * 1e6) for gap in replayer.gaps_s), workers, reissued=reissued)


def _record(outcome: Outcome) -> Record:
    return Record(
        number=outcome.number,
        worker=outcome.endpoint or UNNAMED_WORKER,
        arrival_s=outcome.sent_s,
        first_token_s=outcome.sent_s + outcome.ttft_s,
        ended_s=outcome.ended_s,
        prompt_tokens=outcome.prompt_tokens,
        hit_tokens=outcome.cached_tokens,
        output_tokens=outcome.output_tokens,
        failure=None if outcome.ok else Failure(outcome.error, outcome.status),
    )
