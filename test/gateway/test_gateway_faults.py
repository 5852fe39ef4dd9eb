"""What clients notice when an engine, the picker, the index or Envoy is killed."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from gateway_plant import CONFIGURATIONS, FAIL_OPEN, ORIGINAL_DST, SLOW, STREAMED, Plant

from kvsync_testkit.processes import MODEL, Index
from kvsync_testkit.waiting import wait_until

pytestmark = pytest.mark.timeout(300)
"""A test may start and stop six processes."""

PROMPT = list(range(100, 420))


@contextlib.contextmanager
def gateway(folder, example, **settings):
    """(plant, client)"""
    plant = Plant(folder, example, **settings)
    try:
        with openai.OpenAI(base_url=f"{plant.envoy.base_url}/v1", api_key="any", max_retries=0) as client:
            yield plant, client
    finally:
        plant.stop()


def ask(client, **fields):
    """One completion; its headers."""
    return client.completions.with_raw_response.create(
        model=MODEL, **{"prompt": PROMPT, "max_tokens": 2, **fields}
    ).headers


def home_of(plant, client):
    """The engine that holds the prompt, as the index knows by now."""
    home = ask(client)["x-kvsync-endpoint"]
    wait_until("the index has the prompt", lambda: plant.index.match(PROMPT).get(home, 0) >= 20)
    return home


@pytest.mark.parametrize("example", [STREAMED, FAIL_OPEN])
def test_an_engine_that_is_killed_costs_no_request(tmp_path, example):
    with gateway(tmp_path, example) as (plant, client):
        home = home_of(plant, client)
        plant.engine(home).process.kill()
        plant.engine(home).process.wait()
        for _ in range(20):
            assert ask(client)["x-kvsync-endpoint"] != home
        plant.settle()


def test_with_a_single_address_a_killed_engine_costs_requests_only_until_its_health_is_asked(tmp_path):
    with gateway(tmp_path, ORIGINAL_DST) as (plant, client):
        home = home_of(plant, client)
        plant.engine(home).process.kill()
        plant.engine(home).process.wait()
        wait_until(
            "requests go elsewhere", lambda: ask(client)["x-kvsync-endpoint"] != home, retry_on=(openai.APIStatusError,)
        )
        for _ in range(10):
            assert ask(client)["x-kvsync-endpoint"] != home


@pytest.mark.parametrize("example", CONFIGURATIONS)
def test_an_answer_whose_engine_dies_is_visibly_incomplete(tmp_path, example):
    with gateway(tmp_path, example, mock_latency=SLOW) as (plant, client):
        home = home_of(plant, client)
        events = iter(
            client.completions.create(
                model=MODEL, prompt=PROMPT, max_tokens=4000, stream=True, extra_body={"ignore_eos": True}
            )
        )
        next(events)
        plant.engine(home).process.kill()
        with pytest.raises(openai.APIConnectionError):
            for _ in events:
                pass
        plant.settle()
        wait_until(
            "requests go elsewhere", lambda: ask(client)["x-kvsync-endpoint"] != home, retry_on=(openai.APIStatusError,)
        )


def test_a_gateway_that_fails_open_serves_without_a_picker(tmp_path):
    with gateway(tmp_path, FAIL_OPEN) as (plant, client):
        ask(client)
        plant.picker.kill()
        for _ in range(6):
            assert "x-kvsync-endpoint" not in ask(client)
            client.models.list()
        assert ask(client, extra_body={"user": "x" * 500_000})
        plant.picker.start()
        wait_until("the picker decides again", lambda: "x-kvsync-endpoint" in ask(client))


def test_a_gateway_that_fails_open_refuses_bodies_beyond_its_buffer(tmp_path):
    with gateway(tmp_path, FAIL_OPEN, engines=1) as (plant, client):
        with pytest.raises(openai.APIStatusError) as caught:
            ask(client, extra_body={"user": "x" * 40_000_000})
        assert caught.value.status_code == 413
        plant.settle()


@pytest.mark.parametrize("example", [STREAMED, ORIGINAL_DST])
def test_a_gateway_that_fails_closed_refuses_until_the_picker_is_back(tmp_path, example):
    with gateway(tmp_path, example) as (plant, client):
        ask(client)
        plant.picker.kill()
        for _ in range(3):
            with pytest.raises(openai.InternalServerError):
                ask(client)
        plant.picker.start()
        wait_until(
            "requests are served again", lambda: "x-kvsync-endpoint" in ask(client), retry_on=(openai.APIStatusError,)
        )


def test_without_an_index_load_decides_and_with_it_again_the_cache(tmp_path):
    with gateway(tmp_path, STREAMED) as (plant, client):
        home = home_of(plant, client)
        plant.index.process.kill()
        plant.index.process.wait()
        for _ in range(10):
            headers = ask(client)
            assert (headers["x-kvsync-policy"], headers["x-kvsync-fallback"]) == ("least_request", "index-away")
        plant.index = Index(*plant.engines, folder=tmp_path, port=plant.index.port).live()
        wait_until("the index has the prompt", lambda: plant.index.match(PROMPT).get(home, 0) >= 20)
        wait_until("the index is asked again", lambda: ask(client)["x-kvsync-policy"] == "kv")


def test_an_envoy_that_restarts_finds_its_picker(tmp_path):
    with gateway(tmp_path, STREAMED) as (plant, client):
        home = home_of(plant, client)
        plant.envoy.kill()
        with pytest.raises(openai.APIConnectionError):
            ask(client)
        plant.envoy.start()
        assert ask(client)["x-kvsync-endpoint"] == home
        plant.settle()


def test_a_picker_that_is_told_to_end_finishes_what_it_has(tmp_path):
    with gateway(tmp_path, STREAMED, mock_latency=SLOW) as (plant, client):
        events = iter(
            client.completions.create(
                model=MODEL, prompt=PROMPT, max_tokens=60, stream=True, extra_body={"ignore_eos": True}
            )
        )
        next(events)
        with ThreadPoolExecutor(1) as pool:
            ending = pool.submit(plant.picker.stop)
            assert sum(1 for _ in events) > 20
            assert ending.result() == 0


def test_load_survives_the_death_of_an_engine(tmp_path):
    with gateway(tmp_path, STREAMED, mock_latency='{"decode_us": 2000}') as (plant, client):
        with ThreadPoolExecutor(16) as pool:
            asked = [pool.submit(ask, client, prompt=[number] * 64, max_tokens=1) for number in range(100)]
            asked[20].result()
            plant.engines[1].process.kill()
            failed = [one.exception() for one in asked if one.exception() is not None]
        # Only requests that the engine had begun to answer may be lost, and there are at most as many as clients.
        assert all(isinstance(error, openai.APIError) for error in failed)
        assert len(failed) <= 16
        for number in range(20):
            ask(client, prompt=[1000 + number] * 64)
        plant.settle()
