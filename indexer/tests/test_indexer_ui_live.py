"""The page on a running index with mock engines and a router. KVSYNC_PICTURES=docs/images makes the pictures."""

import contextlib
import itertools
import json
import os
import threading
from pathlib import Path

import msgspec
import pytest

from kvsync_indexer.api import Decision, DecisionsAnswer
from kvsync_testkit.browser import LOOKS, Look
from kvsync_testkit.ports import free_port
from kvsync_testkit.processes import MODEL, HttpPort, Index, MockEngine, stopping
from kvsync_testkit.waiting import wait_until

BLOCK = 16
WORDS = [
    "You are a helpful assistant of a travel agency. Answer briefly and name your sources. " * 6,
    "Summarize the following report for a reader who has two minutes. " * 8,
    "Translate the text below into plain English, and keep its headings. " * 7,
]
PROMPT = f"{WORDS[0]}When does the last train to Basel leave?"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Three engines, one of which has ended, and an index with a router after some prompts."""
    folder = tmp_path_factory.mktemp("ui")
    with contextlib.ExitStack() as stack:
        engines = [MockEngine(block_size=BLOCK, enable_prompt_tokens_details=True) for _ in range(3)]
        for engine in engines:
            stack.enter_context(stopping(engine))
        for engine in engines:
            engine.ready("/health")
        entries = [engine.entry(f"engine-{at}") for at, engine in enumerate(engines)]
        router = HttpPort(free_port())
        index = Index(*entries, folder=folder, router_port=router.port, stale_after="2s")
        stack.enter_context(stopping(index))
        index.live()
        router.ready("/readyz")
        engines[0].complete(PROMPT)
        index.settled()
        stack.enter_context(load_on(router))
        engines[2].stop()
        yield index


@contextlib.contextmanager
def load_on(router):
    """Requests through the router until the block ends."""
    ended = threading.Event()

    def run():
        for turn in itertools.count():
            if ended.wait(0.05):
                return
            body = {"model": MODEL, "prompt": f"{WORDS[turn % 3]}Question {turn // 9}?", "max_tokens": 4}
            with contextlib.suppress(OSError):
                router.ask("POST", "/v1/completions", body)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def open_page(browser, index, look):
    return browser.open(f"{index.url}/ui", look)


def fill_in(page):
    """Use the page as a reader would, and wait for what it shows."""
    dom = page.dom
    dom.locator("#publisher-table .bad, #publisher-table .warn").first.wait_for()
    dom.fill("#prompt-text", PROMPT)
    dom.click("#prompt-form button")
    dom.locator("#match-table rect.f1").first.wait_for(state="attached")
    dom.fill("#audit-publisher", "engine-0")
    dom.select_option("#audit-wait", "2")
    dom.click("#audit-form button")
    dom.locator("#audit-table tbody tr").wait_for()
    dom.locator("#transition-list li").first.wait_for()
    dom.locator("#decision-list summary").first.click()
    dom.locator("#chart-grid figure > svg > polyline").nth(4).wait_for(state="attached")


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_the_page_shows_a_running_index(browser, lab, look, tmp_path):
    with open_page(browser, lab, look) as page:
        fill_in(page)
        dom = page.dom
        assert dom.locator("#publisher-table tbody th").count() == 3
        match = dom.locator("#match-table tbody tr").first.inner_text()
        assert "engine-0" in match
        assert "GPU" in match
        assert "engine-2" in dom.inner_text("#transition-list")
        assert "Connected" in dom.inner_text("#connection")
        opened = dom.locator("#decision-list details[open]").inner_text()
        assert "chosen" in opened
        dom.locator("#decision-note", has_text="stands still").wait_for()
        assert dom.locator("#decision-list details[open]").inner_text() == opened
        assert page.problems() == []
        shown = look in (Look(), Look(390, dark=True))
        page.save(Path(os.environ.get("KVSYNC_PICTURES", tmp_path) if shown else tmp_path) / f"ui-{look}.png")


def test_an_audit_of_a_dead_engine_is_no_agreement(browser, lab):
    with open_page(browser, lab, Look()) as page:
        page.dom.locator("#publisher-table tbody th").first.wait_for()
        page.dom.fill("#audit-publisher", "engine-2")
        page.dom.click("#audit-form button")
        page.dom.locator("#audit-table .bad", has_text="unreachable").wait_for()


def test_history_and_decisions_are_answered_from_a_time_on_and_to_a_limit(lab):
    wait_until("there is a point", lambda: lab.ok("GET", "/v1/history")["points"], deadline_s=60)
    whole = lab.ok("GET", "/v1/history")
    changed = [(each["publisher"], each["after"]) for each in whole["transitions"]]
    assert {("engine-0", "live"), ("engine-2", "stale")} <= set(changed)
    last = whole["transitions"][-1]["at"]
    assert all(each["at"] > last for each in lab.ok("GET", f"/v1/history?since={last}")["transitions"])
    assert lab.ask("GET", "/v1/history?since=nan")[0] == 422
    two = DecisionsAnswer(**lab.ok("GET", "/v1/decisions?limit=2")).decisions
    assert [msgspec.convert(each, Decision).policy for each in two] == ["kv", "kv"]
    assert lab.ok("GET", "/v1/decisions?limit=-5") == {"decisions": []}


def test_an_index_without_a_router_has_no_decisions(index):
    alone = index()
    status, _, body = alone.ask("GET", "/v1/decisions")
    assert (status, json.loads(body)["error"]["message"]) == (404, "no router runs in this process")
