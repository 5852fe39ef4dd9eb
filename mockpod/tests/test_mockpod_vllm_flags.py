"""Every flag of `vllm serve` is accepted as vLLM's parser takes it, and what has no effect is named."""

import contextlib
import io

import pytest
import yaml

from kvsync_mockpod import main as command
from kvsync_mockpod.config import PodConfig, build_config, ignored_keys
from kvsync_mockpod.config.flags import IGNORED_FLAGS, normalize_arguments
from kvsync_mockpod.config.vllm_flags import known_variables, recorded
from kvsync_mockpod.errors import ConfigError
from kvsync_mockpod.pod import ignored_variables, unknown_variables

OBEYED = {
    "allowed_headers": '["x-a"]',
    "allowed_methods": '["GET"]',
    "allowed_origins": '["https://a.example"]',
    "block_size": "32",
    "data_parallel_rank": "0",
    "data_parallel_size": "1",
    "data_parallel_size_local": "1",
    "data_parallel_start_rank": "0",
    "host": "127.0.0.1",
    "kv_events_config": '{"enable_kv_cache_events": false}',
    "long_prefill_token_threshold": "0",
    "lora_modules": "a=/a",
    "max_loras": "2",
    "max_model_len": "8k",
    "max_num_batched_tokens": "8k",
    "max_num_seqs": "64",
    "model": "m",
    "num_gpu_blocks_override": "4096",
    "port": "8001",
    "prefix_caching_hash_algo": "sha256",
    "scheduling_policy": "fcfs",
    "seed": "1",
    "served_model_name": "m",
    "ssl_ca_certs": "ca.pem",
    "ssl_certfile": "cert.pem",
    "ssl_cert_reqs": "0",
    "ssl_ciphers": "HIGH",
    "watermark": "0.1",
    "api_key": "k",
}
"""A value for each flag that has an effect and takes one."""

NEEDED = {
    "data_parallel_external_lb": ("--data-parallel-rank", "0"),
    "data_parallel_hybrid_lb": ("--data-parallel-size-local", "1"),
    "enable_chunked_prefill": ("--max-num-batched-tokens", "32K"),
}
"""What vLLM and the pod want beside a flag."""


@pytest.fixture
def started(monkeypatch):
    """The configurations and the flags without effect of the pods that were not started after all."""
    runs = []

    def run(config, _environment, _latency, without_effect):
        runs.append((config, without_effect))

    monkeypatch.setattr("kvsync_mockpod.server.run_pod", run)
    return runs


def start(*arguments):
    err = io.StringIO()
    with contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        command.main(list(arguments))
    assert (ended.value.code, err.getvalue()) == (0, "")


def forms(flag):
    """Every way to give this flag."""
    longs = ["--" + flag.name.replace("_", "-"), "--" + flag.name, *flag.aliases, *flag.shorts]
    value = OBEYED.get(flag.name, "v")
    for name in longs:
        if flag.values == "none":
            yield [name]
            continue
        yield [name, value]
        if name.startswith("--"):
            yield [f"{name}={value}"]
        if flag.values == "some":
            yield [name, value, value.replace("a=", "b=") if flag.name == "lora_modules" else value]
        if flag.values == "optional":
            yield [name]
    if flag.values == "none" and flag.negatable:
        yield ["--no-" + flag.name.replace("_", "-")]


@pytest.mark.parametrize("name", sorted(set(PodConfig.model_fields) & set(recorded()) - {"ssl_keyfile"}))
def test_every_flag_with_an_effect_is_accepted(started, name):
    for form in forms(recorded()[name]):
        start(*form, *NEEDED.get(name, ()))
        _, without_effect = started.pop()
        assert without_effect.flags == [], form


def test_every_flag_without_effect_is_accepted_and_named(started):
    written = [list(forms(flag)) for flag in IGNORED_FLAGS.values()]
    for number in range(max(map(len, written))):
        start(*(part for each in written for part in each[min(number, len(each) - 1)]))
        config, without_effect = started.pop()
        assert set(without_effect.flags) == set(IGNORED_FLAGS)
        assert config == PodConfig()


def test_a_flag_is_recorded_with_its_source():
    assert len(recorded()) > 300
    assert recorded()["tensor_parallel_size"].shorts == ("-tp",)
    assert recorded()["lora_modules"].values == recorded()["middleware"].values == "some"
    assert recorded()["hf_token"].values == "optional"
    assert recorded()["headless"].negatable is False
    assert "max_seq_len_to_capture" in IGNORED_FLAGS


def test_every_flag_without_prefix_is_vllm_s():
    own = {name for name in PodConfig.model_fields if name.startswith("mock_")}
    assert set(PodConfig.model_fields) - own <= set(recorded())


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        (["-O3"], ["--optimization-level=3"]),
        (["-O", "3"], ["--optimization-level", "3"]),
        (["-O=3"], ["--optimization-level=3"]),
        (["-O.mode=3"], ['--compilation-config={"mode": 3}']),
        (["-cc.mode=3"], ['--compilation-config={"mode": 3}']),
        (["--compilation-config.level", "3"], ['--compilation-config={"level": 3}']),
        (
            ["--compilation_config.pass_config.x_y=true", "--compilation-config.sizes+", "1,2", "--seed", "1"],
            ["--seed", "1", '--compilation-config={"pass_config": {"x_y": true}, "sizes": ["1", "2"]}'],
        ),
        (["--speculative-config.model", "a/b-1.5"], ['--speculative-config={"model": "a/b-1.5"}']),
        (["--max-model-len", "-1"], ["--max-model-len", "-1"]),
        (["--hf-token", "--seed", "1"], ["--hf-token=", "--seed", "1"]),
        (["--lora-modules", "a=1", "b=2"], ["--lora-modules", "a=1", "--lora-modules", "b=2"]),
    ],
)
def test_arguments_are_read_as_vllm_reads_them(given, normal):
    assert normalize_arguments(given) == normal


def test_parts_of_the_event_settings_have_their_effect(started):
    start("m", "--kv-events-config.enable_kv_cache_events", "true", "--kv-events-config.topic", "t", "--seed", "4")
    ((config, _),) = started
    assert config.events.publishes
    assert (config.events.topic, config.seed, config.model) == ("t", 4, "m")


def test_a_part_without_a_value_is_one_line():
    with pytest.raises(ConfigError, match=r"--compilation-config\.level: needs a value"):
        normalize_arguments(["--compilation-config.level"])


def test_a_file_may_have_every_flag_of_vllm(tmp_path):
    path = tmp_path / "pod.yaml"
    path.write_text(yaml.safe_dump({"tensor-parallel-size": 4, "block-size": 32, "allowed-origins": ["*"]}))
    config = build_config({}, path)
    assert (config.block_size, config.allowed_origins) == (32, ("*",))
    assert ignored_keys(path) == ["tensor_parallel_size"]


def test_variables_without_effect_are_named_and_misspelt_ones_apart():
    given = {"VLLM_API_KEY": "k", "VLLM_LOGGING_LEVEL": "x", "VLLM_LOGGING_LEVLE": "x", "HOME": "/", "VLLM_QQQ": ""}
    assert ignored_variables(given) == ["VLLM_LOGGING_LEVEL"]
    assert unknown_variables(given) == ["VLLM_LOGGING_LEVLE; did you mean 'VLLM_LOGGING_LEVEL'?", "VLLM_QQQ"]
    assert "VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES" in known_variables()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"allowed_origins": "*"}, "not a JSON list"),
        ({"ssl_keyfile": "k.pem"}, "ssl_keyfile: needs ssl_certfile"),
        ({"ssl_cert_reqs": 3}, "ssl_cert_reqs"),
    ],
)
def test_bad_values_are_one_line(values, says):
    with pytest.raises(ConfigError, match=says) as caught:
        build_config(values)
    assert "\n" not in str(caught.value)
