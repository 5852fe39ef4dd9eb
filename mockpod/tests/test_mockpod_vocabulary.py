"""Token ids outside the vocabulary are refused as vLLM refuses them."""

import pytest
from mockpod_helpers import start_pod

from kvsync_mockpod.pod import Environment


@pytest.mark.parametrize(
    ("prompt", "token"), [([1, 2048], 2048), ([[1], [5000, 3]], 5000), ([2**32 - 1], 2**32 - 1)], ids=str
)
async def test_ids_beyond_the_vocabulary_are_400_with_vllm_s_message(prompt, token):
    async with start_pod(mock_vocab_size=2048) as pod:
        status, answer = await pod.post("/v1/completions", {"prompt": prompt, "max_tokens": 1})
        assert status == 400
        assert answer["error"] == {
            "message": f"Token id {token} is out of vocabulary",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        }
        assert pod.pod.ranks[0].engine.statistics().requests == 0
        assert (await pod.post("/v1/completions", {"prompt": [0, 2047], "max_tokens": 1}))[0] == 200


async def test_text_is_never_outside_the_vocabulary():
    async with start_pod(mock_vocab_size=2048) as pod:
        assert (await pod.post("/v1/completions", {"prompt": "any text", "max_tokens": 1}))[0] == 200
        assert (await pod.post("/v1/completions", {"prompt": ["two", "texts"], "max_tokens": 1}))[0] == 200


async def test_by_default_every_32_bit_id_is_accepted():
    async with start_pod() as pod:
        assert (await pod.post("/v1/completions", {"prompt": [70_000, 2**32 - 1], "max_tokens": 1}))[0] == 200


async def test_the_server_says_its_vocabulary():
    async with start_pod(Environment(dev_mode=True), mock_vocab_size=2048, max_model_len=512) as pod:
        _, info = await pod.get("/server_info?config_format=json")
        assert info["vllm_config"]["model_config"] == {"model": "kvsync/mock", "max_model_len": 512, "vocab_size": 2048}
