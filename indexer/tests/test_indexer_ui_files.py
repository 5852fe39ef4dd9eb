"""What `/ui` serves, and under which policy."""

import re

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from kvsync_indexer.errors import RequestError
from kvsync_indexer.service.ui import POLICY, _files, ui_routes


@pytest.fixture
def client():
    return TestClient(Starlette(routes=ui_routes()), raise_server_exceptions=True)


def test_every_file_has_the_policy_and_its_type(client):
    names = sorted(_files())
    assert {"index.html", "style.css", "main.js"} <= set(names)
    for path in ("/ui", *(f"/ui/{name}" for name in names)):
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-type"].startswith(("text/", "image/svg+xml"))


def test_the_policy_lets_nothing_inline_and_nothing_from_elsewhere_run():
    assert POLICY.startswith("default-src 'none'")
    assert "unsafe" not in POLICY
    assert "*" not in POLICY


def test_an_unchanged_file_is_not_sent_again(client):
    tag = client.get("/ui/main.js").headers["etag"]
    answer = client.get("/ui/main.js", headers={"if-none-match": tag})
    assert (answer.status_code, answer.content) == (304, b"")


@pytest.mark.parametrize("name", ["nothing.js", "__init__.py", "%2e%2e"])
def test_nothing_else_is_served(client, name):
    with pytest.raises(RequestError, match="no such path"):
        client.get(f"/ui/{name}")


def test_the_slash_leads_back_to_the_page_below_any_prefix(client):
    answer = client.get("/ui/", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (308, "../ui")


def test_the_page_names_only_files_that_exist_and_sets_no_markup_from_data():
    for name, (data, _) in _files().items():
        text = data.decode()
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in text
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|style=", text), name
        for reference in re.findall(r'(?:from|import) "\./([^"]+)"|(?:src|href)="ui/([^"]+)"', text):
            assert "".join(reference) in _files(), (name, reference)
