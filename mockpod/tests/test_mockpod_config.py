"""What the pod accepts from flags and files, and what it refuses with one line that names the field."""

import json
from pathlib import Path

import pytest

from kvsync_mockpod.config import PodConfig, build_config
from kvsync_mockpod.config.flags import normalize_arguments
from kvsync_mockpod.errors import ConfigError, MockPodError
from kvsync_mockpod.faults.spec import EVENT_KINDS, HTTP_KINDS, REPLAY_KINDS
from kvsync_mockpod.main import main
from kvsync_mockpod.pod import Environment
from kvsync_mockpod.publish import plan_endpoints


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    out, err = capsys.readouterr()
    assert exit_.value.code == 2
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("kvsync-mockpod: ")
    return err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--block-size", "0"], "block_size: 0"),
        (["--block-size", "x"], "--block-size"),
        (["--blok-size", "3"], "did you mean '--block-size'"),
        (["--num-gpu-blocks-override", "1"], "num_gpu_blocks_override: 1"),
        (["--num-gpu-blocks-override", "10"], "max_model_len: 32768 tokens do not fit 9 usable blocks"),
        (["--mock-latency", "gtx480"], "mock_latency: 'gtx480'"),
        (["--mock-wire-version", "0.8.5"], "mock_wire_version: '0.8.5'"),
        (["--mock-wire-version", "abc"], "mock_wire_version: 'abc'"),
        (["--mock-time-scale", "-1"], "mock_time_scale: -1.0"),
        (["--kv-events-config", "{"], "kv_events_config: '{' is not JSON"),
        (["--kv-events-config", '{"endpoit":"x"}'], "did you mean 'endpoint'"),
        (["--kv-events-config", '{"enable_kv_cache_events":true,"endpoint":"5557"}'], "kv_events_config.endpoint"),
        (["--data-parallel-size", "2"], "replay of rank 0 both need port 5558"),
        (
            ["-dp", "2", "--kv-events-config", '{"enable_kv_cache_events":true,"endpoint":"ipc://x"}'],
            "only tcp and inproc",
        ),
        (["--port", "5557"], "events of rank 0 and the HTTP port both need port 5557"),
        (["--max-num-batched-tokens", "100"], "below max_num_seqs"),
        (["--no-enable-chunked-prefill"], "max_num_batched_tokens: 2048 is below max_model_len"),
        (["--lora-modules", "one"], "not NAME=PATH"),
        (["--lora-modules", "one=/a", "one=/b"], "'one' is used twice"),
        (["--config", "no/such/file.yaml"], "cannot be read"),
        (["--mock-disk-blocks", "5"], "mock_disk_blocks: a disk tier needs a host tier"),
        (["--mock-host-blocks", "5", "--mock-host-bandwidth", "-1"], "mock_host_bandwidth: -1.0"),
        (["--mock-host-blocks", "5", "--mock-host-bandwidth", "nan"], "mock_host_bandwidth: nan"),
        (["--mock-host-blocks", "5", "--mock-disk-bandwidth", "0"], "mock_disk_bandwidth: 0.0"),
        (["--mock-block-bytes", "0"], "mock_block_bytes: 0"),
        (["--mock-latency", '{"prefill_us": -1}'], "prefill_us -1"),
        (["--mock-latency-jitter", "1"], "mock_latency_jitter: 1.0"),
        (["--mock-host-blocks", "5", "--no-enable-prefix-caching"], "mock_host_blocks: lower tiers need"),
        (["model", "another"], "another"),
    ],
)
def test_a_bad_flag_is_one_line_and_exit_code_2(capsys, arguments, says):
    assert says in refused(capsys, *arguments)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("block-sise: 3\n", "unknown key 'block_sise'; did you mean 'block_size'?"),
        ("a: [1,\nb: }", ":2: not YAML"),
        ("- 1\n", "a mapping of flag names"),
        ("kv-events-config: {enable_kv_cache_events: true, buffer-steps: 3}\n", "buffer-steps"),
        ("max-num-seqs: many\n", "max_num_seqs: 'many'"),
    ],
)
def test_a_bad_file_is_one_line_too(capsys, tmp_path, text, says):
    path = tmp_path / "pod.yaml"
    path.write_text(text)
    assert says in refused(capsys, "--config", str(path))


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path):
    path = tmp_path / "pod.yaml"
    path.write_text(
        "block-size: 32\nserved_model_name: [a, b]\nkv-events-config:\n  enable_kv_cache_events: true\n"
        "  topic: t\nlora-modules:\n  - {name: x, path: /x}\n"
    )
    config = build_config({"block_size": 64}, path)
    assert config.block_size == 64
    assert config.names == ("a", "b")
    assert config.events.topic == "t"
    assert config.lora_modules[0].name == "x"
    assert config.max_num_seqs == 256


def test_vllm_s_habits_are_understood():
    assert normalize_arguments(["--max_model_len=5", "--lora-modules", "a=1", "b=2", "--api-key", "k", "-dp", "2"]) == [
        "--max-model-len=5",
        "--lora-modules",
        "a=1",
        "--lora-modules",
        "b=2",
        "--api-key",
        "k",
        "--data-parallel-size",
        "2",
    ]
    with pytest.raises(ConfigError, match="did you mean '--max-num-seqs'"):
        normalize_arguments(["--max-num-sequences", "3"])


@pytest.mark.parametrize(
    ("written", "tokens"), [("8k", 8000), ("8K", 8192), ("25.6k", 25_600), ("300", 300), (300, 300), ("1m", 1_000_000)]
)
def test_lengths_are_read_as_vllm_reads_them(written, tokens):
    assert build_config({"max_model_len": written, "num_gpu_blocks_override": 100_000}).max_model_len == tokens


@pytest.mark.parametrize("written", ["auto", "-1", -1])
def test_an_automatic_length_fits_the_cache(written):
    assert build_config({"max_model_len": written}).max_model_len == 32_768
    assert build_config({"max_model_len": written, "num_gpu_blocks_override": 101}).max_model_len == 1600


@pytest.mark.parametrize("written", ["8.5K", "k", "-2", "many"])
def test_other_lengths_are_refused_on_one_line(written):
    with pytest.raises(ConfigError) as caught:
        build_config({"max_model_len": written})
    assert "\n" not in str(caught.value)


def test_events_are_on_by_default_and_as_vllm_s_once_configured():
    assert build_config({}).events.publishes
    assert build_config({}).events.replay_endpoint == "tcp://*:5558"
    assert not build_config({"kv_events_config": "{}"}).events.publishes
    on = build_config({"kv_events_config": '{"enable_kv_cache_events":true}'}).events
    assert on.publishes
    assert on.replay_endpoint is None
    assert not build_config({"kv_events_config": '{"enable_kv_cache_events":true,"publisher":"null"}'}).events.publishes


@pytest.mark.parametrize("gap", [1, 2, 3, 4])
def test_ranges_that_overlap_are_refused(gap):
    events = {"enable_kv_cache_events": True, "endpoint": "tcp://*:6000", "replay_endpoint": f"tcp://*:{6000 + gap}"}
    config = build_config({"data_parallel_size": 3, "kv_events_config": events})
    if gap < 3:
        with pytest.raises(ConfigError, match="both need port"):
            plan_endpoints(config)
    else:
        assert len(plan_endpoints(config)) == 3


def test_environment_switches():
    read = Environment.read(
        {"PYTHONHASHSEED": "7", "VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES": "0", "VLLM_SERVER_DEV_MODE": "1"}
    )
    assert read == Environment(hash_seed="7", int_block_hashes=False, dev_mode=True)
    assert Environment.read({"PYTHONHASHSEED": "random"}).hash_seed is None
    with pytest.raises(MockPodError, match="VLLM_SERVER_DEV_MODE: 'maybe'"):
        Environment.read({"VLLM_SERVER_DEV_MODE": "maybe"})


def test_the_page_names_every_flag_with_its_default():
    page = (Path(__file__).parents[2] / "docs" / "mockpod.md").read_text()
    rows = {line.split("|")[1].strip("`"): line for line in page.splitlines() if line.startswith("|`--")}
    assert set(rows) == {"--" + name.replace("_", "-") for name in PodConfig.model_fields}
    for name, field in PodConfig.model_fields.items():
        default = "" if field.default in (None, ()) else field.default
        default = json.dumps(default) if isinstance(default, tuple) else default
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        assert rows["--" + name.replace("_", "-")] == f"|`--{name.replace('_', '-')}`|{shown}|{field.description}|"


def test_the_page_names_every_fault():
    page = (Path(__file__).parents[2] / "docs" / "mockpod.md").read_text()
    for kind in EVENT_KINDS | REPLAY_KINDS | HTTP_KINDS:
        assert f"|`{kind}`|" in page
