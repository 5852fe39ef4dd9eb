"""The page at `/ui` in a real browser, on scripted answers: hostile names, many publishers, tokens, restarts."""

import contextlib
import json

import pytest
from ui_helpers import ScriptedIndex, point, publisher

from kvsync_testkit.browser import LOOKS

HOSTILE = '"><img src=x onerror="window.hit=1"><script>window.hit=1</script>\u202e'


@pytest.fixture
def scripted():
    with ScriptedIndex().running() as index:
        yield index


def texts(page, selector):
    return page.dom.locator(selector).all_inner_texts()


def wait_for_text(page, selector, text):
    page.dom.locator(selector).filter(has_text=text).first.wait_for(state="attached")


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_hostile_names_stay_text_and_the_page_stays_readable(browser, scripted, look):
    names = [HOSTILE, "x" * 300, "plain"]
    states = ["stale", "quarantined", "live"]
    scripted.publish(
        *(
            publisher(name, state=state, reason=f"because of {HOSTILE}", epoch=HOSTILE, model=HOSTILE)
            for name, state in zip(names, states, strict=True)
        )
    )
    scripted.answers["/v1/history"] = scripted.history(
        points=[point(2000.0 + 5 * at, events_per_s=at) for at in range(20)],
        transitions=[
            {"at": 2010.0, "publisher": HOSTILE, "before": "live", "after": "stale", "reason": HOSTILE},
            {"at": 2020.0, "publisher": "plain", "before": "connecting", "after": "live", "reason": "x" * 300},
        ],
    )
    candidate = {"publisher": HOSTILE, "score": 1.5, "matched_tokens": 8, "queued": 0, "reason": HOSTILE}
    scripted.answers["/v1/decisions"] = {
        "decisions": [
            {
                "at": 2050.0, "model": HOSTILE, "policy": "kv", "chosen": HOSTILE, "predicted_tokens": 8,
                "available_tokens": 16, "reported_tokens": 4, "candidates": [candidate],
            }
        ]
    }  # fmt: skip
    match = {
        "publisher": HOSTILE, "pod": "", "rank": 0, "matched_blocks": 2, "matched_tokens": 8, "state": HOSTILE,
        "tiers": {HOSTILE: 1, "GPU": 1}, "age_s": None, "incomplete": False,
    }  # fmt: skip
    scripted.answers["/v1/match"] = {"block_size": 4, "query_blocks": 3, "matches": [match]}
    slot = {
        "medium": HOSTILE, "group_idx": None, "engine_blocks": 3, "index_blocks": 2, "missing": 1, "extra": 0,
        "missing_examples": [HOSTILE], "extra_examples": [],
    }  # fmt: skip
    audit = {
        "publisher": HOSTILE, "verdict": "different", "detail": HOSTILE, "engine_blocks": 3, "index_blocks": 2,
        "missing": 1, "extra": 0, "slots": [slot], "prediction_error": None, "engine_hit_ratio": None,
    }  # fmt: skip
    scripted.answers["/v1/audit"] = {
        "publishers": [audit], "audited": 1, "blocks": 3, "differences": 1, "equal": False, "seconds": 0.1,
    }  # fmt: skip
    with browser.open(scripted.url, look) as page:
        wait_for_text(page, "#publisher-table tbody", "plain")
        wait_for_text(page, "#transition-list", "onerror")
        wait_for_text(page, "#decision-list", "onerror")
        page.dom.fill("#prompt-text", "some text")
        page.dom.click("#prompt-form button")
        wait_for_text(page, "#match-table", "onerror")
        page.dom.click("#audit-form button")
        wait_for_text(page, "#audit-note", "the difference is 1 block")
        page.dom.locator("#publisher-table button").filter(has_text="onerror").click()
        for details in page.dom.locator("details > summary").all():
            details.click()
        assert page.problems() == []
        assert page.dom.evaluate("window.hit") is None
        assert page.dom.locator("main img, main script").count() == 0


def test_a_thousand_publishers_come_in_pages_with_trouble_first(browser, scripted):
    scripted.publish(
        *(publisher(f"pod-{at:04}", state="gap" if at == 777 else "live", blocks=at, lag=0) for at in range(1000))
    )
    with browser.open(scripted.url) as page:
        wait_for_text(page, "#page-text", "1 to 50 of 1000")
        names = texts(page, "#publisher-table tbody th")
        assert len(names) == 50
        assert names[:2] == ["pod-0777", "pod-0000"]
        page.dom.click("#page-on")
        wait_for_text(page, "#page-text", "51 to 100 of 1000")
        assert texts(page, "#publisher-table tbody th")[0] == "pod-0049"
        page.dom.fill("#filter-text", "pod-09")
        wait_for_text(page, "#page-text", "1 to 50 of 100")
        page.dom.fill("#filter-text", "")
        page.dom.select_option("#filter-state", "gap")
        wait_for_text(page, "#page-text", "1 to 1 of 1")
        page.dom.select_option("#filter-state", "")
        page.dom.select_option("#filter-order", "blocks")
        assert texts(page, "#publisher-table tbody th")[0] == "pod-0999"


def test_the_keyboard_reaches_everything_and_a_poll_keeps_the_focus(browser, scripted):
    scripted.publish(publisher("a"), publisher("b"))
    with browser.open(scripted.url) as page:
        wait_for_text(page, "#publisher-table tbody", "b")
        page.dom.keyboard.press("Tab")
        assert page.dom.evaluate("document.activeElement.textContent") == "Skip to the publishers"
        page.dom.keyboard.press("Enter")
        page.dom.focus("#publisher-table button")
        page.dom.keyboard.press("Enter")
        wait_for_text(page, "#publisher-table .facts", "model")
        polls = len(scripted.asked)
        scripted.publish(publisher("a", blocks=4321), publisher("b"))
        wait_for_text(page, "#publisher-table tbody", "4,321")
        assert len(scripted.asked) > polls
        assert page.dom.evaluate("document.activeElement.textContent") == "a"
        assert page.dom.get_attribute("#publisher-table button", "aria-expanded") == "true"


def test_the_page_works_behind_a_path_prefix_and_asks_for_a_token(browser):
    with ScriptedIndex(prefix="/some/where", token="s3cret").running() as index:
        index.publish(publisher("behind-a-proxy"))
        with browser.open(index.url) as page:
            give_token(page, "wrong", "This index needs a token")
            give_token(page, "s3cret", "This index needs a token")
            wait_for_text(page, "#publisher-table tbody", "behind-a-proxy")
            assert not page.dom.locator("#token-dialog[open]").count()
            page.dom.reload()
            wait_for_text(page, "#publisher-table tbody", "behind-a-proxy")
        with browser.open(f"{index.url}/") as page:
            assert page.dom.url == index.url


def test_an_audit_may_need_a_token_of_its_own(browser):
    with ScriptedIndex(token="general", audit_token="special").running() as index:
        index.publish(publisher("a"))
        index.answers["/v1/audit"] = {
            "publishers": [], "audited": 0, "blocks": 0, "differences": 0, "equal": True, "seconds": 0.0,
        }  # fmt: skip
        with browser.open(index.url) as page:
            give_token(page, "general", "This index needs a token")
            wait_for_text(page, "#publisher-table tbody", "a")
            page.dom.click("#audit-form button")
            give_token(page, "special", "An audit needs a token")
            page.dom.click("#audit-form button")
            wait_for_text(page, "#audit-note", "no difference")
            with page.dom.expect_response("**/v1/publishers") as polled:
                pass
            assert polled.value.status == 200
            assert not page.dom.locator("#token-dialog[open]").count()


def give_token(page, token, title):
    page.dom.locator("#token-dialog[open]").wait_for()
    assert page.dom.inner_text("#token-title") == title
    page.dom.fill("#token", token)
    page.dom.keyboard.press("Enter")


def test_the_page_says_that_the_index_is_away_and_goes_on_when_it_is_back(browser):
    index = ScriptedIndex()
    transition = {"publisher": "a", "before": "connecting", "after": "live", "reason": "r"}
    with contextlib.ExitStack() as first_life, contextlib.ExitStack() as opened:
        first_life.enter_context(index.running())
        index.publish(publisher("before"))
        index.answers["/v1/history"] = index.history(transitions=[{**transition, "at": 1001.0, "publisher": "old"}])
        page = opened.enter_context(browser.open(index.url))
        wait_for_text(page, "#publisher-table tbody", "before")
        wait_for_text(page, "#transition-list", "old")
        first_life.close()
        wait_for_text(page, "#connection", "No answer")
        index.publish(publisher("after"))
        index.answers["/v1/history"] = index.history(
            started=5000.0, transitions=[{**transition, "at": 5001.0, "publisher": "young"}]
        )
        with index.running():
            wait_for_text(page, "#connection", "Connected to the index.")
            wait_for_text(page, "#publisher-table tbody", "after")
            wait_for_text(page, "#transition-list", "young")
            assert "old" not in texts(page, "#transition-list")[0]


def test_a_prompt_is_sent_in_the_chosen_form_with_its_context(browser, scripted):
    scripted.publish(publisher("a"))
    scripted.answers["/v1/match"] = {"block_size": 4, "query_blocks": 1, "matches": []}
    with browser.open(scripted.url) as page:
        wait_for_text(page, "#publisher-table tbody", "a")

        def sent(kind, text):
            before = sum(path == "/v1/match" for path, _ in scripted.asked)
            page.dom.select_option("#prompt-kind", kind)
            page.dom.fill("#prompt-text", text)
            with page.dom.expect_response("**/v1/match"):
                page.dom.click("#prompt-form button")
            bodies = [body for path, body in scripted.asked if path == "/v1/match"]
            assert len(bodies) == before + 1
            return json.loads(bodies[-1])

        assert sent("prompt", "hello") == {"model": "m", "limit": 50, "prompt": "hello"}
        assert sent("messages", "hi")["messages"] == [{"role": "user", "content": "hi"}]
        assert sent("messages", '[{"role": "system", "content": "s"}]')["messages"][0]["role"] == "system"
        page.dom.fill("#prompt-lora", "adapter")
        page.dom.fill("#prompt-salt", "salt")
        last = sent("token_ids", "[1, 2 3]")
        assert (last["token_ids"], last["lora"], last["cache_salt"]) == ([1, 2, 3], "adapter", "salt")
        page.dom.fill("#prompt-text", "1, two")
        page.dom.click("#prompt-form button")
        wait_for_text(page, "#prompt-note", "“two” is no token id.")


def test_an_index_without_a_router_says_so(browser, scripted):
    with browser.open(scripted.url) as page:
        wait_for_text(page, "#decision-note", "There is no router in this process.")
