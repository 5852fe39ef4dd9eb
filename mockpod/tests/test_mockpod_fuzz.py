"""Fuzzes the HTTP surface with its own OpenAPI description: no 5xx, only documented answers, no leaked blocks.

KVSYNC_FUZZ_EXAMPLES sets the number of examples, pytest's `--hypothesis-seed` the seed.
"""

import json
import os
import urllib.request

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from mockpod_helpers import make_config
from mockpod_process import pod_process
from prometheus_client.parser import text_string_to_metric_families
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from kvsync_mockpod.http.app import Application
from kvsync_mockpod.latency import build_latency
from kvsync_mockpod.pod import Environment, Pod
from kvsync_testkit.waiting import wait_until

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
]
SMALL = ("--max-model-len", "256", "--num-gpu-blocks-override", "200", "--mock-output-tokens", "8")
FUZZ = settings(
    max_examples=int(os.environ.get("KVSYNC_FUZZ_EXAMPLES", "5")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def serving(*flags: str, env: dict[str, str] | None = None):
    """A pod to fuzz; afterwards it must be alive and idle, with every block free."""
    with pod_process(*SMALL, *flags, env=env) as pod:
        base = f"http://127.0.0.1:{pod.port}"
        yield base
        names = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")

        def idle() -> bool:
            families = text_string_to_metric_families(fetch(base + "/metrics"))
            values = {sample.name: sample.value for family in families for sample in family.samples}
            return all(values[name] == 0 for name in names)

        wait_until("the pod is idle and holds no blocks", idle, deadline_s=20)
        assert pod.process.poll() is None
        assert not [line for line in pod.log if line.get("level") in ("error", "critical")], pod.log


LORA = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
DEV = {"VLLM_SERVER_DEV_MODE": "1"}


@pytest.fixture(scope="module")
def generating():
    yield from serving("--lora-modules", "ad=/l/ad", env=LORA)


@pytest.fixture(scope="module")
def operated():
    yield from serving(env=DEV)


def operations(variables: dict[str, str]) -> dict:
    """The operations of a pod with these environment variables, by `METHOD /path`."""
    config = make_config()
    pod = Pod(config, Environment.read(variables), latency=build_latency(config))
    schema = schemathesis.openapi.from_dict(Application(pod).description())
    return {found.ok().label: found.ok() for found in schema.get_all_operations()}


GENERATING, OPERATED = operations(LORA), operations(DEV)
STATEFUL = ("/debug/faults",)
"""Excluded: a plan with HTTP faults causes errors on purpose, and plans have tests of their own."""


def fuzz(operation, base: str) -> None:
    @FUZZ
    @given(case=operation.as_strategy())
    def positive(case):
        case.call_and_validate(base_url=base, checks=CHECKS, timeout=20)

    @FUZZ
    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))
    def negative(case):
        case.call_and_validate(base_url=base, checks=CHECKS, timeout=20)

    positive()
    if operation.body or operation.query:
        negative()


@pytest.mark.parametrize("label", [label for label in GENERATING if not label.endswith(STATEFUL)])
def test_whatever_a_client_sends_gets_a_documented_answer(generating, label):
    fuzz(GENERATING[label], generating)


@pytest.mark.parametrize("label", [label for label in OPERATED if label not in GENERATING])
def test_whatever_an_operator_sends_gets_a_documented_answer(operated, label):
    fuzz(OPERATED[label], operated)


def test_the_description_names_every_body(generating):
    document = json.loads(fetch(generating + "/openapi.json"))
    bodies = {
        path: operation["requestBody"]
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method in ("post", "put") and "requestBody" in operation
    }
    assert {"/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages", "/debug/faults"} <= set(bodies)
    for body in bodies.values():
        name = body["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
        assert document["components"]["schemas"][name]["properties"]
