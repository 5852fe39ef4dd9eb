"""The HTTP API is what its description says: every route, status and answer, whatever a client sends.

KVSYNC_FUZZ_EXAMPLES sets the number of examples for each operation.
"""

import json
import os

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from service_helpers import BLOCK, MODEL, ScriptedPublisher, wait_for
from starlette.routing import Route
from starlette.testclient import TestClient

from kvsync_indexer.api import MOST_QUERIES
from kvsync_indexer.config import IndexerConfig
from kvsync_indexer.publishers import PublisherSpec
from kvsync_indexer.service import http_reference, openapi
from kvsync_indexer.service.app import IndexApp
from kvsync_indexer.service.operations import OPERATIONS
from kvsync_indexer.service.service import IndexService

CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance, unsupported_method]
FUZZ = settings(
    max_examples=int(os.environ.get("KVSYNC_FUZZ_EXAMPLES", "10")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
PAGES = ("/ui",)
"""Paths of pages, which are no part of the API."""
TOKENS = list(range(3 * BLOCK))


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """The application of an index that follows a publisher with three blocks, without any server or network."""
    file = tmp_path_factory.mktemp("api") / "publishers.yaml"
    file.write_text("[]")
    service = IndexService(IndexerConfig.parse({"publishers": file}))
    publisher = ScriptedPublisher()
    publisher.store(3, TOKENS)
    service.ingest.start()
    service._started_at = service.monotonic()
    for name in ("p", "ns/pod/1"):
        service.ingest.add(
            PublisherSpec(
                name=name, model=MODEL, endpoint=publisher.endpoint, replay_endpoint=publisher.replay_endpoint
            )
        )
    wait_for(lambda: len(service.ingest.trusted.get(MODEL, ())) == 2, what="both publishers are trusted")
    yield IndexApp(service)
    service.ingest.stop()
    publisher.close()


@pytest.fixture(scope="module")
def client(running):
    """A client of it."""
    return TestClient(running, raise_server_exceptions=False)


# -- the description -----------------------------------------------------------------------------------------------


def test_every_route_is_described_and_nothing_else(running):
    routes = {
        (route.path.replace(":path}", "}"), method.lower())
        for route in running.routes
        for method in (route.methods if isinstance(route, Route) and route.methods else ())
        if method != "HEAD" and not route.path.startswith(PAGES)
    }
    described = {(operation.path, operation.method) for operation in OPERATIONS}
    assert described == routes | {("/v1/match", "post")}


def test_every_field_of_an_answer_is_described():
    schemas = openapi.schemas()
    assert schemas["PublisherRow"]["properties"]["lag"]["description"].startswith("Batches that are known to exist")
    assert schemas["MatchRequest"]["properties"]["tool_choice"]["description"]  # of a base
    assert schemas["MatchRequest"]["additionalProperties"] is False
    assert schemas["MatchRow"]["required"]


def test_the_description_is_served(client):
    assert client.get("/openapi.json").json() == json.loads(msgspec.json.encode(openapi.describe()))


def test_the_reference_page_is_checked(tmp_path):
    page = tmp_path / "page.md"
    assert http_reference.main([str(page), "--check"]) == 1
    assert http_reference.main([str(page)]) == 0
    assert http_reference.main([str(page), "--check"]) == 0
    assert http_reference.main([]) == 2
    for operation in OPERATIONS:
        assert f"`{operation.method.upper()} {operation.path}`" in page.read_text()


@pytest.fixture(scope="module")
def operations(running):
    """The described operations, by method and path."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", running)
    return {found.ok().label: found.ok() for found in schema.get_all_operations()}


LABELS = [f"{each.method.upper()} {each.path}" for each in OPERATIONS if each.path != "/openapi.json"]
"""The description itself is left out by schemathesis, and has a test of its own."""


@pytest.mark.parametrize("label", LABELS)
def test_whatever_a_client_sends_gets_a_described_answer(operations, label):
    operation = operations[label]

    def check(case):
        response = case.call()
        assert response.status_code != 500
        case.validate_response(response, checks=CHECKS)

    @FUZZ
    @given(case=operation.as_strategy())
    def valid(case):
        check(case)

    @FUZZ
    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))
    def invalid(case):
        check(case)

    valid()
    if operation.body:
        invalid()


def test_a_wrong_method_is_answered_with_the_right_one(client):
    for path, right in (("/v1/match", "POST"), ("/v1/publishers", "GET, HEAD"), ("/v1/audit", "POST")):
        answer = client.request("DELETE", path)
        assert answer.status_code == 405
        assert set(answer.headers["allow"].split(", ")) == set(right.split(", "))
        assert answer.json()["error"]["message"]


# -- batches -------------------------------------------------------------------------------------------------------


def match(client, body):
    answer = client.post("/v1/match", json=body)
    return answer.status_code, answer.json()


def test_a_batch_has_one_result_for_each_query_in_order(client):
    queries = [{"model": MODEL, "token_ids": TOKENS[: BLOCK * count], "publishers": ["p"]} for count in (3, 1, 2)]
    status, answer = match(client, {"queries": queries})
    assert status == 200
    assert [result["matches"][0]["matched_blocks"] for result in answer["results"]] == [3, 1, 2]
    for query, result in zip(queries, answer["results"], strict=True):
        alone = match(client, query)[1]
        for row in (*alone["matches"], *result["matches"]):
            row.pop("age_s")
        assert result == alone


def test_a_wrong_query_costs_the_others_nothing(client):
    good = {"model": MODEL, "token_ids": TOKENS}
    wrong = [
        {"model": MODEL},
        {"modle": MODEL},
        3,
        {"model": MODEL, "prompt": "x"},
        {**good, "extra_keys": [[[[[[[[[[1]]]]]]]]]]},
    ]
    status, answer = match(client, {"queries": [good, *wrong, good]})
    assert status == 200
    assert [result.get("status", 200) for result in answer["results"]] == [200, 422, 422, 422, 422, 422, 200]
    for query, result in zip(wrong, answer["results"][1:-1], strict=True):
        alone = match(client, query)
        assert (result["status"], result["error"]) == (alone[0], alone[1]["error"])
        assert result["matches"] == []


@pytest.mark.parametrize(
    "body",
    [
        {"queries": []},
        {"queries": [{"model": MODEL, "token_ids": [1]}] * (MOST_QUERIES + 1)},
        {"queries": [{"model": MODEL, "token_ids": [1]}], "model": MODEL},
        {"queries": 3},
    ],
)
def test_what_is_no_batch_is_refused(client, body):
    status, answer = match(client, body)
    assert (status, list(answer)) == (422, ["error"])


def test_a_prompt_may_speak_of_queries(client):
    status, answer = match(client, {"model": "none", "messages": [{"role": "user", "content": '"queries"'}]})
    assert (status, answer["error"]["field"]) == (422, "model")  # nobody can tokenize it


def test_a_batch_of_the_largest_size_is_answered(client):
    status, answer = match(client, {"queries": [{"model": MODEL, "token_ids": TOKENS}] * MOST_QUERIES})
    assert (status, len(answer["results"])) == (200, MOST_QUERIES)


# -- readiness -----------------------------------------------------------------------------------------------------


def test_readiness_says_why_not(tmp_path):
    now = [0.0]
    file = tmp_path / "publishers.yaml"
    rows = [{"name": f"p{at}", "model": MODEL, "endpoint": f"ipc://{tmp_path}/none{at}"} for at in range(10)]
    file.write_text(json.dumps(rows))
    service = IndexService(IndexerConfig.parse({"publishers": file}), monotonic=lambda: now[0])
    client = TestClient(IndexApp(service))
    try:
        assert client.get("/readyz").json()["reasons"] == ["the index is starting"]
        assert client.get("/healthz").status_code == 503
        service.ingest.start()
        service._started_at = 0.0
        assert client.get("/readyz").json()["reasons"][-1] == "10 publishers of the file are not followed yet"
        service._file_specs.replace(service._first)
        wait_for(lambda: len(service.ingest.links()) == 10, what="the publishers are followed")
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["reasons"] == [
            *(f"publisher p{at} is connecting" for at in range(8)), "and 2 more publishers",
        ]  # fmt: skip
        now[0] = 11.0
        wait_for(lambda: service.ingest.heartbeat == 11.0, what="the I/O thread has turned")
        assert client.get("/readyz").json()["reasons"] == []
    finally:
        service.ingest.stop()
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()["problem"]) == (503, "the I/O thread has ended")
    assert client.get("/readyz").json()["reasons"] == ["the I/O thread has ended"]
