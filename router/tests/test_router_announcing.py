"""Losing the index is one log line, however many requests notice it; and an answer has one date."""

import aiohttp
from router_helpers import MODEL, running_engines, running_router
from structlog.testing import capture_logs

from kvsync_indexer.api import MatchRequest
from kvsync_router.decisions.scoring import Score
from kvsync_router.errors import ScorerUnavailableError
from kvsync_router.sources.announcing import AnnouncingScorer

TOKENS, TEXT = MatchRequest(MODEL, token_ids=[1]), MatchRequest(MODEL, prompt="x")


class FlakyScorer:
    away = False

    async def score(self, request):
        if self.away:
            raise ScorerUnavailableError("TimeoutError")
        return Score()


async def ask(scorer, request):
    try:
        await scorer.score(request)
    except ScorerUnavailableError:
        return False
    return True


async def test_the_index_is_lost_once_and_found_once():
    flaky = FlakyScorer()
    scorer = AnnouncingScorer(flaky)
    with capture_logs() as logs:
        assert await ask(scorer, TOKENS)
        flaky.away = True
        assert not any([await ask(scorer, TOKENS) for _ in range(50)])
        assert [line["event"] for line in logs] == ["index_lost"]
        assert not await ask(scorer, TEXT)
        flaky.away = False
        assert all([await ask(scorer, TOKENS) for _ in range(50)])
    assert [(line["event"], line["prompts"]) for line in logs] == [
        ("index_lost", "token ids"),
        ("index_lost", "texts"),
        ("index_found_again", "token ids"),
    ]


async def test_an_answer_has_the_date_of_the_engine_alone():
    async with (
        running_engines("a") as engines,
        running_router(engines) as (_, url),
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/completions", json={"model": MODEL, "prompt": [1, 2]}) as answer,
    ):
        assert answer.status == 200
        assert len(answer.headers.getall("date")) == 1
