"""Replays a trace against a running OpenAI server: a router, a single engine, or a real vLLM."""

from collections import Counter
from collections.abc import Iterable

import aiohttp
import msgspec

from kvsync.errors import UnreachableError
from kvsync.index_client import describe
from kvsync.load.client import MAX_IN_FLIGHT, Outcome, Replayer
from kvsync.replay.records import Record, ReplayResult
from kvsync_workload.prompts import Prompt

UNNAMED_WORKER = "target"


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


async def find_model(session: aiohttp.ClientSession, url: str) -> str:
    """The first model that the server lists. Raises UnreachableError if the server gives no usable answer."""
    try:
        async with session.get(f"{url}/v1/models", timeout=aiohttp.ClientTimeout(total=30)) as response:
            body = await response.read()
            if response.status != 200:
                raise UnreachableError(f"{url}/v1/models: status {response.status}")
        models = msgspec.json.decode(body, type=_Models).data
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise UnreachableError(f"{url}: {describe(error)}") from None
    except msgspec.MsgspecError as error:
        raise UnreachableError(f"{url}/v1/models: not the answer of an OpenAI server: {error}") from None
    if not models:
        raise UnreachableError(f"{url}: serves no model")
    return models[0].id


async def replay_live(
    session: aiohttp.ClientSession, url: str, model: str, prompts: Iterable[Prompt], max_in_flight: int | None
) -> ReplayResult:
    """Send every prompt at its arrival time, and wait for all answers."""
    replayer = Replayer(session, url, model, speed=1.0, max_in_flight=max_in_flight or MAX_IN_FLIGHT)
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
        ok=outcome.ok,
    )
