"""The rest of vLLM's HTTP surface: models, adapters, tokenizer, cache reset, sleep, pause, metrics, keys, errors."""

import asyncio
import json

import pytest
from mockpod_helpers import replay, start_pod, truth
from prometheus_client.parser import text_string_to_metric_families

from kvsync_events import AllBlocksCleared, decode_batch
from kvsync_mockpod.pod import Environment
from kvsync_testkit.waiting import until

DEV = Environment(dev_mode=True)
IDS = list(range(70_000, 70_100))


async def test_models_and_version_and_health():
    async with start_pod(served_model_name=["llama", "l3"], lora_modules=["ad=/adapters/ad"], max_model_len=512) as pod:
        _, models = await pod.get("/v1/models")
        rows = {row["id"]: row for row in models["data"]}
        assert list(rows) == ["llama", "l3", "ad"]
        assert rows["llama"]["max_model_len"] == 512
        assert (rows["ad"]["parent"], rows["ad"]["root"]) == ("llama", "/adapters/ad")
        assert (await pod.get("/v1/models/l3"))[1]["id"] == "l3"
        assert (await pod.get("/v1/models/none"))[0] == 404
        assert await pod.text("/health") == ""
        assert (await pod.get("/version"))[1] == {"version": "0.33.0"}
        assert (await pod.get("/load"))[1] == {"server_load": 0}


async def test_a_text_and_its_tokens():
    async with start_pod() as pod:
        text = "Grüße, Zoë 😀, 12345!"
        _, tokens = await pod.post("/tokenize", {"prompt": text, "return_token_strs": True})
        assert tokens["count"] == len(tokens["tokens"])
        assert "".join(tokens["token_strs"]) == text
        assert (await pod.post("/detokenize", {"tokens": tokens["tokens"]}))[1] == {"prompt": text}
        messages = [{"role": "user", "content": "hi"}]
        _, chat = await pod.post("/tokenize", {"messages": messages})
        body = {"messages": messages, "max_tokens": 1, "return_token_ids": True}
        _, answer = await pod.post("/v1/chat/completions", body)
        assert answer["prompt_token_ids"] == chat["tokens"]
        for body in ({}, {"prompt": "a", "messages": messages}):
            assert (await pod.post("/tokenize", body))[0] == 400


async def test_adapters_and_salts_are_part_of_a_block_s_identity():
    environment = Environment(runtime_lora_updating=True)
    async with start_pod(environment, lora_modules=["one=/l/one"], enable_prompt_tokens_details=True) as pod:

        async def cached(**more):
            status, answer = await pod.post("/v1/completions", {"prompt": IDS, "max_tokens": 1, **more})
            assert status == 200, answer
            return answer["usage"]["prompt_tokens_details"]["cached_tokens"]

        assert await cached() == 0
        assert await cached() == 96
        assert await cached(model="one") == 0
        assert await cached(cache_salt="tenant") == 0
        assert await cached(cache_salt="other") == 0
        assert await cached(model="one") == 96
        async with pod.client.post(
            pod.url + "/v1/load_lora_adapter", json={"lora_name": "two", "lora_path": "/l/two"}
        ) as answer:
            assert (answer.status, await answer.text()) == (200, "Success: LoRA adapter 'two' added successfully.")
        assert await cached(model="two") == 0
        status, error = await pod.post("/v1/load_lora_adapter", {"lora_name": "two", "lora_path": "/l/two"})
        assert (status, error["error"]["param"]) == (400, "lora_name")
        async with pod.client.post(pod.url + "/v1/unload_lora_adapter", json={"lora_name": "two"}) as answer:
            assert await answer.text() == "Success: LoRA adapter 'two' removed successfully."
        assert (await pod.post("/v1/unload_lora_adapter", {"lora_name": "two"}))[0] == 404
        status, error = await pod.post("/v1/completions", {"prompt": IDS, "model": "two"})
        assert (status, error["error"]["message"]) == (404, "The model `two` does not exist.")
        assert "vllm:lora_requests_info{" in await pod.text("/metrics")


async def test_run_time_adapters_and_dev_endpoints_need_their_switch():
    async with start_pod() as pod:
        for path in ("/v1/load_lora_adapter", "/reset_prefix_cache", "/sleep", "/pause"):
            assert (await pod.post(path, {}))[0] == 404


async def test_pictures_are_part_of_a_block_s_identity():
    async with start_pod(enable_prompt_tokens_details=True) as pod:

        async def cached(url):
            content = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": url}}]
            body = {"messages": [{"role": "user", "content": content}], "max_tokens": 1}
            _, answer = await pod.post("/v1/chat/completions", body)
            return answer["usage"]["prompt_tokens_details"]["cached_tokens"]

        assert await cached("data:,a") == 0
        assert await cached("data:,b") == 0
        assert await cached("data:,a") >= 64


async def test_reset_prefix_cache_is_announced_with_the_next_step():
    async with start_pod(DEV) as pod:
        await pod.post("/v1/completions", {"prompt": IDS, "max_tokens": 1})
        before = await pod.quiet()
        assert (await pod.post("/reset_prefix_cache", {}))[1] == {"success": True}
        assert await truth(pod) == {}
        _, digest = await pod.get("/debug/kv/digest")
        assert digest["seq"] == before["seq"], "an idle engine sends it with its next request"
        assert digest["quiet"] is False
        await pod.post("/v1/completions", {"prompt": IDS[:40], "max_tokens": 1})
        await pod.quiet()
        items = await replay(pod.pod.ranks[0].publisher.replay_endpoint, before["seq"]["0"] + 1)
        assert decode_batch(items[0].payload).events[0] == AllBlocksCleared()
        assert len(await truth(pod)) == 2


async def test_reset_while_busy_is_refused_unless_requests_are_preempted():
    async with start_pod(DEV) as pod:
        body = {"prompt": IDS, "max_tokens": 20_000, "ignore_eos": True}
        running = asyncio.create_task(pod.post("/v1/completions", body))
        await until("the request runs", lambda: pod.pod.ranks[0].engine.statistics().running == 1)
        assert (await pod.post("/reset_prefix_cache", {}))[1] == {"success": False}
        assert (await pod.post("/reset_prefix_cache?reset_running_requests=true", {}))[1] == {"success": True}
        assert pod.pod.ranks[0].engine.statistics().preemptions == 1
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_sleep_aborts_clears_and_holds_requests_until_wake_up():
    async with start_pod(DEV) as pod:
        body = {"prompt": IDS, "max_tokens": 30_000, "ignore_eos": True}
        running = asyncio.create_task(pod.post("/v1/completions", body))
        await until("the request runs", lambda: pod.pod.ranks[0].engine.statistics().running == 1)
        assert (await pod.post("/sleep?level=1", {}))[1] == {"status": "sleeping", "level": 1}
        assert (await running)[1]["choices"][0]["finish_reason"] == "abort"
        assert (await pod.get("/is_sleeping"))[1] == {"is_sleeping": True}
        assert 'sleep_state="weights_offloaded"} 1.0' in await pod.text("/metrics")
        assert await truth(pod) == {}
        held = asyncio.create_task(pod.post("/v1/completions", {"prompt": IDS, "max_tokens": 1}))
        await until("the request waits", lambda: pod.pod.ranks[0].engine.statistics().waiting == 1)
        assert (await pod.post("/wake_up", {}))[0] == 200
        assert (await held)[0] == 200
        assert (await pod.get("/is_sleeping"))[1] == {"is_sleeping": False}


@pytest.mark.parametrize("mode", ["abort", "wait", "keep"])
async def test_pause_modes(mode):
    async with start_pod(DEV, mock_latency='{"decode_us": 20000}') as pod:
        body = {"prompt": IDS, "max_tokens": 150, "ignore_eos": True}
        running = asyncio.create_task(pod.post("/v1/completions", body))
        await until("the request runs", lambda: pod.pod.ranks[0].engine.statistics().running == 1)
        assert (await pod.post(f"/pause?mode={mode}&clear_cache=false", {}))[1] == {"status": "paused"}
        assert (await pod.get("/is_paused"))[1] == {"is_paused": True}
        if mode == "keep":
            assert not running.done()
            await pod.quiet()
            steps = pod.pod.ranks[0].engine.statistics().steps
            assert (await pod.get("/is_paused"))[1] == {"is_paused": True}
            assert pod.pod.ranks[0].engine.statistics().steps == steps, "a paused engine does not step"
            await pod.post("/resume", {})
        status, answer = await running
        assert status == 200
        expected = {"abort": "abort", "wait": "length", "keep": "length"}[mode]
        assert answer["choices"][0]["finish_reason"] == expected
        await pod.post("/resume", {})
        assert (await pod.post("/v1/completions", {"prompt": IDS, "max_tokens": 1}))[0] == 200
        assert (await pod.post("/pause?mode=never", {}))[0] == 400


async def test_kv_event_sources_and_server_info():
    async with start_pod(DEV, data_parallel_size=2, api_key=["secret"]) as pod:
        _, sources = await pod.get("/kv_event_sources")
        assert list(sources) == ["0", "1"]
        ports = {sources[rank][key].rsplit(":", 1)[1] for rank in sources for key in ("endpoint", "replay_endpoint")}
        assert len(ports) == 4
        assert "0" not in ports
        _, info = await pod.get("/server_info?config_format=json")
        assert info["vllm_config"]["data_parallel_size"] == 2
        assert "secret" not in json.dumps(info)


async def test_keys_are_asked_for_under_v1_only():
    async with start_pod(Environment(api_key="from-env"), api_key=["k1", "k2"]) as pod:
        assert (await pod.get("/v1/models"))[0] == 401
        assert (await pod.get("/version"))[0] == 200
        for key, expected in (("k2", 200), ("from-env", 200), ("k3", 401), ("", 401)):
            status, _ = await pod.post("/v1/completions", {"prompt": "x"}, Authorization=f"Bearer {key}")
            assert status == expected
        _, document = await pod.get("/openapi.json")
        assert document["paths"]["/v1/completions"]["post"]["security"] == [{"key": []}]


async def test_metrics_have_vllm_s_names_and_equal_the_history():
    async with start_pod() as pod:
        for _ in range(2):
            await pod.post("/v1/completions", {"prompt": IDS, "max_tokens": 5})
        text = await pod.text("/metrics")
        families = {family.name: family for family in text_string_to_metric_families(text)}
        values = {(s.name, *sorted(s.labels.items())): s.value for f in families.values() for s in f.samples}

        def value(name, **labels):
            return values[(name, *sorted({"model_name": "kvsync/mock", "engine": "0", **labels}.items()))]

        assert value("vllm:prompt_tokens_total") == 200
        assert value("vllm:prompt_tokens_cached_total") == 96
        assert value("vllm:prompt_tokens_by_source_total", source="local_compute") == 104
        assert value("vllm:prefix_cache_queries_total") == 200
        assert value("vllm:prefix_cache_hits_total") == 96
        assert value("vllm:generation_tokens_total") == 10
        assert value("vllm:request_success_total", finished_reason="length") == 2
        assert value("vllm:time_to_first_token_seconds_count") == 2
        assert value("vllm:inter_token_latency_seconds_count") == 8
        assert value("vllm:request_prompt_tokens_bucket", le="100.0") == 2
        assert value("vllm:request_prompt_tokens_bucket", le="50.0") == 0
        assert value("vllm:num_requests_running") == 0
        assert value("vllm:kv_cache_usage_perc") == 0
        buckets = [s.labels["le"] for s in families["vllm:time_to_first_token_seconds"].samples if "le" in s.labels]
        assert buckets[:3] == ["0.001", "0.005", "0.01"]
        assert buckets[-2:] == ["2560.0", "+Inf"]
        assert families["vllm:cache_config_info"].samples[0].labels["block_size"] == "16"


async def test_old_versions_have_their_own_hashes():
    async with start_pod(mock_wire_version="0.9.2") as pod:
        await pod.post("/v1/completions", {"prompt": IDS, "max_tokens": 1})
        await pod.quiet()
        (item,) = await replay(pod.pod.ranks[0].publisher.replay_endpoint, 0)
        (event,) = decode_batch(item.payload).events
        assert {hash_ % 2**64 for hash_ in event.block_hashes} == set(await truth(pod))
    async with start_pod(mock_wire_version="0.9.2", prefix_caching_hash_algo="sha256") as pod:
        await pod.post("/v1/completions", {"prompt": IDS, "max_tokens": 1})
        digest = await pod.quiet()
        stats = pod.pod.ranks[0].publisher.statistics()
        assert digest["seq"] == {"0": 0}, "a batch that cannot be encoded has used up its number"
        assert stats.encode_errors == 1
        assert await replay(pod.pod.ranks[0].publisher.replay_endpoint, 0) == []


async def test_a_request_takes_at_least_the_time_of_the_latency_model():
    custom = json.dumps({"decode_us": 20_000, "prefill_us": 50_000})
    loop = asyncio.get_running_loop()
    async with start_pod(mock_latency=custom, async_scheduling=False) as pod:
        started = loop.time()
        await pod.post("/v1/completions", {"prompt": IDS, "max_tokens": 10})
        assert loop.time() - started >= 0.05 + 9 * 0.02


async def test_the_time_scale_shortens_the_latency():
    """Unscaled, the nine decode steps would take 15 minutes, far more than the time limit of a test."""
    custom = json.dumps({"decode_us": 100_000_000})
    async with start_pod(mock_latency=custom, mock_time_scale=1e-5) as pod:
        assert (await pod.post("/v1/completions", {"prompt": IDS, "max_tokens": 10}))[0] == 200


async def test_full_reports_announce_the_hit_chain_again():
    async with start_pod() as pod:
        await pod.post("/v1/completions", {"prompt": IDS, "max_tokens": 1})
        first = (await pod.quiet())["seq"]["0"]
        body = {"prompt": IDS, "max_tokens": 1, "vllm_xargs": {"kv_cache_report_mode": "full"}}
        await pod.post("/v1/completions", body)
        await pod.quiet()
        items = await replay(pod.pod.ranks[0].publisher.replay_endpoint, first + 1)
        events = [event for item in items for event in decode_batch(item.payload).events]
        assert len(events[0].block_hashes) == 6
        assert events[0].parent_block_hash is None
