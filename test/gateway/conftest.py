"""Gateways that tests share: one of each configuration, started when the first test asks for it."""

import openai
import pytest
from gateway_plant import CONFIGURATIONS, SLOW, Plant


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def plant(request, tmp_path_factory):
    """A gateway whose engines answer a token about every 20 ms."""
    with_latency = {"mock_latency": SLOW, "max_model_len": 200_000, "num_gpu_blocks_override": 20_000}
    running = Plant(tmp_path_factory.mktemp("gateway"), request.param, **with_latency)
    yield running
    running.stop()


@pytest.fixture
def client(plant):
    """The official client, which retries nothing, so that a test sees every failure."""
    with openai.OpenAI(base_url=f"{plant.envoy.base_url}/v1", api_key="any", max_retries=0) as client:
        yield client
