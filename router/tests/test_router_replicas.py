"""Several replicas of an index: which one is asked, what happens if it fails, and that the choice does not flap."""

import asyncio

import aiohttp
import click
import pytest
from router_helpers import MODEL, HttpIndex, ask, running_engines, running_router

from kvsync_indexer.api import MatchRequest, PredictionReport
from kvsync_indexer.client import IndexRefusedError, IndexUnreachableError
from kvsync_router.config import RouterConfig
from kvsync_router.decisions.replicas import PAUSE_MAX_S, PAUSE_S, ROUNDS, ReplicaChoice
from kvsync_router.decisions.scoring import Score
from kvsync_router.errors import RouterConfigError, ScorerUnavailableError
from kvsync_router.flags import index_url_option
from kvsync_router.routing import Routing
from kvsync_router.sources.replicas import ReplicaProbe, ReplicaScorer, ReplicatedIndex

QUESTION = MatchRequest(MODEL, token_ids=[1, 2])


class Rig:
    """A choice on a clock that a test sets."""

    def __init__(self, count=2):
        self.now = 0.0
        self.preferred = []
        self.choice = ReplicaChoice(count, lambda: self.now, self.preferred.append)

    def round(self, *latencies):
        self.now += 1.0
        for at, latency in enumerate(latencies):
            self.choice.probed(at, latency)
        self.choice.settle()
        return self.choice.order()


# -- the choice ----------------------------------------------------------------------------------------------------


def test_the_first_round_chooses_the_nearest():
    rig = Rig(3)
    assert rig.choice.order() == [0, 1, 2]
    assert rig.round(0.009, 0.004, 0.002) == [2, 1, 0]
    assert rig.preferred == [2]


def test_a_little_nearer_or_nearer_for_a_moment_changes_nothing():
    rig = Rig()
    rig.round(0.004, 0.005)
    for _ in range(5 * ROUNDS):
        rig.round(0.004, 0.003)
    for _ in range(4):
        for _ in range(ROUNDS - 2):
            rig.round(0.004, 0.0001)
        for _ in range(12):
            rig.round(0.004, 0.004)
    assert rig.preferred == []


def test_a_replica_that_stays_much_nearer_is_preferred_once():
    rig = Rig()
    rig.round(0.004, 0.005)
    for _ in range(40):
        rig.round(0.020, 0.001)
    assert rig.preferred == [1]


def test_a_microsecond_is_no_distance():
    rig = Rig()
    rig.round(0.0004, 0.0005)
    for _ in range(40):
        rig.round(0.0009, 0.0001)
    assert rig.preferred == []


def test_a_replica_that_fails_is_left_at_once_and_does_not_win_its_place_back():
    rig = Rig()
    rig.round(0.002, 0.003)
    rig.choice.failed(0)
    assert rig.choice.order() == [1, 0]
    for _ in range(60):
        assert rig.round(0.002, 0.003) == [1, 0]
    assert rig.preferred == [1]


def test_the_pause_after_failures_doubles_until_a_question_is_answered():
    rig = Rig()

    def pause():
        """How long replica 0 stays out after a failure, although replica 1 is not ready either."""
        rig.choice.probed(1, 0.001)
        rig.choice.failed(0)
        rig.choice.failed(0)  # the same moment counts once
        began = rig.now
        rig.choice.probed(1, None)
        while rig.choice.order()[0] != 0:
            rig.now += PAUSE_S / 2
            rig.choice.settle()
        return rig.now - began

    assert [pause() for _ in range(7)] == [1.0, 2.0, 4.0, 8.0, 16.0, PAUSE_MAX_S, PAUSE_MAX_S]
    rig.choice.answered(0)
    assert pause() == PAUSE_S


def test_a_replica_that_is_not_ready_comes_last_and_all_are_still_asked():
    rig = Rig(3)
    rig.round(0.001, 0.002, 0.003)
    assert rig.round(None, 0.002, 0.003) == [1, 2, 0]
    assert sorted(rig.round(None, None, None)) == [0, 1, 2]
    assert rig.round(None, None, 0.003)[0] == 2


# -- questions -----------------------------------------------------------------------------------------------------


class Scripted:
    """A scorer that answers after `delay_s`, or fails, or never answers."""

    def __init__(self, name, delay_s=0.0, *, fails=False, hangs=False):
        self.name, self.delay_s, self.fails, self.hangs = name, delay_s, fails, hangs
        self.asked = self.cancelled = 0

    async def score(self, request):
        self.asked += 1
        try:
            if self.hangs:
                await asyncio.Event().wait()
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.fails:
            raise ScorerUnavailableError(f"{self.name} failed")
        return Score({self.name: 1})


def scorer(*scripted, timeout_s=30.0):
    clock = asyncio.get_running_loop().time
    choice = ReplicaChoice(len(scripted), clock)
    return ReplicaScorer(scripted, choice, timeout_s, clock), choice


async def test_the_second_replica_is_not_asked_while_the_first_one_answers():
    first, second = Scripted("a"), Scripted("b")
    asked, _ = scorer(first, second)
    assert (await asked.score(QUESTION)).matched_tokens == {"a": 1}
    assert second.asked == 0


async def test_a_failure_hands_over_at_once():
    first, second = Scripted("a", fails=True), Scripted("b")
    asked, choice = scorer(first, second)
    assert (await asked.score(QUESTION)).matched_tokens == {"b": 1}
    assert choice.order() == [1, 0]
    await asked.score(QUESTION)
    assert first.asked == 1


async def test_a_silent_replica_leaves_the_rest_of_the_time_to_the_next_one():
    first, second = Scripted("a", hangs=True), Scripted("b")
    asked, choice = scorer(first, second, timeout_s=0.2)
    assert (await asked.score(QUESTION)).matched_tokens == {"b": 1}
    assert (first.cancelled, choice.order()) == (1, [1, 0])


async def test_a_slow_replica_may_still_answer_after_the_next_one_was_asked():
    first, second = Scripted("a", 1.2), Scripted("b", hangs=True)
    asked, choice = scorer(first, second, timeout_s=2.0)
    assert (await asked.score(QUESTION)).matched_tokens == {"a": 1}
    assert (second.asked, second.cancelled, choice.order()) == (1, 1, [0, 1])


@pytest.mark.parametrize("how", [{"fails": True}, {"hangs": True}])
async def test_without_any_answer_the_scorer_is_unavailable(how):
    scripted = [Scripted("a", **how), Scripted("b", **how)]
    asked, _ = scorer(*scripted, timeout_s=0.2)
    with pytest.raises(ScorerUnavailableError):
        await asked.score(QUESTION)
    assert [one.asked for one in scripted] == [1, 1]


class Calls:
    """An index client whose calls fail with `error`, or answer with its name."""

    def __init__(self, name, error=None, *, ready=True):
        self.name, self.error, self.ready = name, error, ready
        self.asked = 0

    async def publishers(self):
        self.asked += 1
        if self.error is not None:
            raise self.error
        return [self.name]

    async def report_prediction(self, report):
        return (await self.publishers())[0]

    async def readiness(self):
        await self.publishers()
        return self


async def test_other_questions_go_on_to_the_next_replica_unless_they_are_refused():
    choice = ReplicaChoice(2, lambda: 0.0)
    away = Calls("a", IndexUnreachableError("a: away"))
    index = ReplicatedIndex([away, Calls("b")], choice)
    assert await index.publishers() == ["b"]
    assert await index.report_prediction(PredictionReport("p", 1, 1)) == "b"
    assert away.asked == 1
    refusing = Calls("a", IndexRefusedError("a", 401, "no token"))
    second = Calls("b")
    with pytest.raises(IndexRefusedError):
        await ReplicatedIndex([refusing, second], ReplicaChoice(2, lambda: 0.0)).publishers()
    assert second.asked == 0


async def test_the_probe_prefers_a_replica_that_is_ready():
    choice = ReplicaChoice(3, lambda: 0.0)
    calls = [Calls("a", IndexUnreachableError("a: away")), Calls("b", ready=False), Calls("c")]
    probe = ReplicaProbe(calls, choice, 60.0, lambda: 0.0)
    await probe.start()
    assert choice.order()[0] == 2
    calls[2].error, calls[1].ready = IndexUnreachableError("c: away"), True
    await probe.probe()
    assert choice.order()[0] == 1
    await probe.stop()


# -- a router over sockets -----------------------------------------------------------------------------------------


async def test_a_router_goes_on_with_the_other_replica_and_stays_with_it():
    async with running_engines("a", "b") as engines:
        first, second = [await HttpIndex(engines, [(name, 16, "live")]).start() for name in ("a", "b")]
        config = RouterConfig.parse({"match_timeout_s": 2.0, "refresh_s": 0.05, "index_backoff_s": 0.0})
        routing = Routing.over_http(config, [first.url, second.url])
        async with running_router([], routing=routing) as (_, url), aiohttp.ClientSession() as session:

            async def answered():
                status, headers, _ = await ask(session, url, prompt=list(range(16)))
                assert status == 200
                assert "x-kvsync-fallback" not in headers
                return headers["x-kvsync-endpoint"]

            before = await answered()
            after = "b" if before == "a" else "a"
            one, other = (first, second) if before == "a" else (second, first)
            await one.stop()
            assert await answered() == after
            await one.start()
            asked = len(one.asked)
            assert {await answered() for _ in range(20)} == {after}
            assert len(one.asked) == asked
            other.hang = True
            assert await answered() == before
        await first.stop()
        await second.stop()


def test_urls_that_make_no_sense_are_refused():
    with pytest.raises(RouterConfigError, match="ftp"):
        Routing.over_http(RouterConfig(), ["http://a", "ftp://b"])


@pytest.mark.parametrize(
    ("given", "urls"),
    [
        ([], []),
        (["--index-url", "http://a"], ["http://a"]),
        (["--index-url", "http://a, http://b", "--index-url", "http://c"], ["http://a", "http://b", "http://c"]),
        (["--index-url", "http://a,http://a,"], ["http://a"]),
    ],
)
def test_the_flag_takes_urls_one_by_one_or_with_commas(given, urls):
    @click.command()
    @index_url_option
    def command(index_urls):
        return index_urls

    assert command.main(given, standalone_mode=False) == urls
