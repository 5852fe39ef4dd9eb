"""Which engine a container starts, and on which ports and ranks: shells, SGLang, TensorRT-LLM, load balancing modes."""

import json

import pytest
from discovery_helpers import pod

from kvsync_indexer.discovery import PodError, pod_publishers

VLLM_EVENTS = json.dumps({"enable_kv_cache_events": True, "endpoint": "tcp://*:20080"})
SGLANG_EVENTS = json.dumps({"publisher": "zmq", "endpoint": "tcp://*:6000", "topic": "kv-events"})
MODEL = {"model": "m"}
SERVE = f"vllm serve Q --port 8200 --kv-events-config '{VLLM_EVENTS}'"


def found(*words, notes=MODEL, env=(), labels=None, **how):
    made = pod("p", notes=notes, command=list(words), **({"labels": labels} if labels else {}), **how)
    made["spec"]["containers"][0]["env"] = list(env)
    return pod_publishers(made, qualified=False)


def ports(specs):
    return [(spec.endpoint.rpartition(":")[2], (spec.http_url or "").rpartition(":")[2]) for spec in specs]


# -- shells -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["sh", "-c", f"exec {SERVE}"],
        ["/bin/bash", "-lc", SERVE],
        ["/bin/bash", "-euo", "pipefail", "-c", SERVE],
        ["bash", "-l", "-c", "--", SERVE],
        ["tini", "--", "env", "A=b", "sh", "-c", SERVE],
        ["sh", "-c", f"cd /models && export HF_HOME=/cache && exec {SERVE}"],
        ["sh", "-c", f"set -e\n# vllm serve Z\necho 'vllm serve Z'; echo vllm serve Z\nA=1 B='2 3' {SERVE} 2>&1 | tee"],
        ["sh", "-c", f"until curl -s model; do sleep 1; done; {SERVE} &\nwait"],
        ["sh", "-c", SERVE.replace(" --port", " \\\n  --port").replace("8200", '"82""00"')],
        ["sh", "-c", f"PORT=8200; {SERVE.replace('8200', '${PORT}')}"],
        ["sh", "-c", f"PORT=8200 && {SERVE.replace('8200', '$PORT')}"],
        ["sh", "-c", f"ARGS='--port 8200' && vllm serve Q $ARGS --kv-events-config '{VLLM_EVENTS}'"],
        ["sh", "-c", 'exec vllm serve Q "$@"', "--", "--port", "8200", "--kv-events-config", VLLM_EVENTS],
        ["sh", "-c", 'exec vllm serve Q --port $1 --kv-events-config "$2"', "sh", "8200", VLLM_EVENTS],
        ["sh", "-c", f'bash -c "{SERVE.replace(chr(34), chr(92) + chr(34))}"'],
        ["bash", "-c", f"numactl -m 0 python3 -m vllm.entrypoints.openai.api_server {SERVE.partition('Q')[2]}"],
        ["sh", "-c", f"{SERVE} --api-key $API_KEY --max-model-len=$(cat len)"],
        ["sh", "-c", f"{SERVE} --seed `date +%s` >/dev/null"],
    ],
)  # fmt: skip
def test_shell_forms_are_read(words):
    assert ports(found(*words)) == [("20080", "8200")]


@pytest.mark.parametrize(
    ("script", "word"),
    [
        ("./start.sh", "starts no engine"),
        ("if a; then vllm serve Q; else vllm serve Q --port 1; fi", "2 engines"),
        ("vllm serve Q --port $PORT", "$PORT"),
        ("vllm serve Q --port $(cat port)", "substitution"),
        ("vllm serve Q --port `cat port`", "substitution"),
        ("vllm serve Q $EXTRA_ARGS", "$EXTRA_ARGS"),
        ("vllm serve Q --enable-x $VLLM_OPTIONS", "$VLLM_OPTIONS"),
        ("vllm serve Q --port ${PORT:-8200}", "$PORT"),
        ("[ -f x ] && PORT=1; vllm serve Q --port $PORT", "$PORT"),
        ("if [ -f x ]; then A=1; PORT=2; fi; vllm serve Q --port $PORT", "$PORT"),
        (". ./env; PORT=1; vllm serve Q --port $PORT", "$PORT"),
        ("test x || PORT=1; vllm serve Q --port $PORT", "$PORT"),
        ("vllm serve Q --port 8200 --kv-events-config '{", "closing '"),
        ('vllm serve Q "', 'closing "'),
        ("vllm serve Q $(", "closing )"),
        ("cat <<X\nvllm serve\nX", "here-document"),
        ('eval "vllm serve Q --port 8200"', "starts no engine"),
        ("vllm serve Q --config /etc/vllm.yaml", "--config"),
    ],
)
def test_shell_forms_that_hide_a_setting_are_refused(script, word):
    with pytest.raises(PodError) as caught:
        found("sh", "-c", script)
    assert word in str(caught.value)
    assert "kvsync.dev/events-port" in str(caught.value)


@pytest.mark.parametrize("words", [["bash"], ["bash", "/start.sh"], ["/start.sh"], ["sh", "-e", "run"]])
def test_script_files_are_refused(words):
    with pytest.raises(PodError):
        found(*words)


def test_annotations_replace_what_a_script_hides():
    notes = MODEL | {"events-port": "7000", "http-port": "7001"}
    assert ports(found("sh", "-c", "./start.sh", notes=notes)) == [("7000", "7001")]
    labels = {"model.aibrix.ai/name": "m", "model.aibrix.ai/port": "7002"}
    assert ports(found("sh", "-c", "./start.sh", notes={"events-port": "7000"}, labels=labels)) == [("7000", "7002")]
    with pytest.raises(PodError, match="starts no engine"):
        found("sh", "-c", "./start.sh", notes=MODEL | {"events-port": "7000"})


def test_variables_of_the_container():
    env = [{"name": "PORT", "value": "8200"}, {"name": "SECRET", "valueFrom": {"secretKeyRef": {}}}]
    words = ["vllm", "serve", "Q", "--port", "$(PORT)", "--api-key", "$(SECRET)", "--kv-events-config", VLLM_EVENTS]
    assert ports(found(*words, env=env)) == [("20080", "8200")]
    assert ports(found("sh", "-c", SERVE.replace("8200", "$PORT"), env=env)) == [("20080", "8200")]
    assert ports(found("sh", "-c", SERVE.replace("8200", "$(PORT)"), env=env)) == [("20080", "8200")]
    for hidden in ("$(SECRET)", "$(OTHER)"):
        with pytest.raises(PodError, match="--port depends on"):
            found("vllm", "serve", "Q", "--port", hidden, env=env)


def test_no_command_means_the_defaults_of_the_contract():
    assert ports(found()) == [("5557", "8000")]


# -- other engines ------------------------------------------------------------------------------------------------


def test_sglang_has_no_switch_and_its_own_port():
    words = ["python3", "-m", "sglang.launch_server", "--model-path", "Q", "--kv-events-config", SGLANG_EVENTS]
    (spec,) = found(*words, notes={})
    assert (spec.model, spec.topic, spec.replay_endpoint) == ("Q", "kv-events", None)
    assert ports([spec]) == [("6000", "30000")]
    assert ports(
        found("sh", "-c", f"sglang serve --model-path Q --port 1234 --kv-events-config '{SGLANG_EVENTS}'")
    ) == [("6000", "1234")]
    assert ports(found(*words, "--dp-size", "2", "--enable-dp-attention")) == [("6000", "30000"), ("6001", "30000")]
    second = found(*words, "--dp-size", "8", "--nnodes", "2", "--node-rank", "1")
    assert [(spec.rank, spec.http_url) for spec in second] == [(4, None), (5, None), (6, None), (7, None)]
    assert ports(found("/entry", *words[3:], "--dp", "2")) == [("6000", "30000"), ("6001", "30000")]
    for config in ("{}", '{"publisher":"null"}', '{"enable_kv_cache_events":true}'):
        with pytest.raises(PodError, match="does not enable"):
            found(*words[:5], "--kv-events-config", config)
    with pytest.raises(PodError, match="sglang name no event port"):
        found(*words[:5])


def test_tensorrt_llm_needs_an_annotation_for_its_events():
    words = ["trtllm-serve", "org/model", "--port", "8300"]
    with pytest.raises(PodError, match=r"kvsync\.dev/events-port"):
        found(*words, notes={})
    (spec,) = found(*words, notes={"events-port": "7000"})
    assert (spec.model, ports([spec])) == ("org/model", [("7000", "8300")])


# -- ranks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "ranks", "http_ranks", "http"),
    [
        ("-dp 2", [0, 1], [0, 1], ["8000"] * 2),
        ("-dp 4 -dpl 2", [0, 1], [0, 1], ["8000"] * 2),
        ("-dp 4 -dpl 2 --data-parallel-start-rank 2", [2, 3], [0, 1], ["8000"] * 2),
        ("-dp 4 -dpl 2 -dpr 2 --data-parallel-hybrid-lb", [2, 3], [0, 1], ["8000"] * 2),
        ("-dp 4 -dpl 2 --data_parallel_start_rank=2 --headless", [2, 3], [0, 1], [""] * 2),
        ("-dp 4 -dpl 2 --nnodes 2 --node-rank 1", [2, 3], [0, 1], ["8000"] * 2),
        ("-dp 4 --data-parallel-rank 3", [3], [0], ["8000"]),
        ("-dp 4 -dpn 3 --data-parallel-external-lb", [3], [0], ["8000"]),
        ("-dp 2 --data-parallel-external-lb --nnodes 2 --node-rank 1", [1], [0], ["8000"]),
        ("-dp 4 -dpl 2 -dpr 2 --data-parallel-multi-port-external-lb", [2, 3], [0, 1], ["8000", "8001"]),
    ],
)
def test_load_balancing_modes(flags, ranks, http_ranks, http):
    specs = found("vllm", "serve", "Q", *flags.split(), "--kv-events-config", VLLM_EVENTS)
    assert [spec.rank for spec in specs] == ranks
    assert [spec.http_rank for spec in specs] == http_ranks
    assert ports(specs) == [(str(20080 + rank), port) for rank, port in zip(ranks, http, strict=True)]
    assert [spec.name for spec in specs] == [f"p/{rank}" for rank in ranks]


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        ("-dp 65", "64"),
        ("-dp 59000", "59000"),
        ("-dp 4 -dpl 0", "0 data-parallel ranks"),
        ("-dp 4 --data-parallel-hybrid-lb", "size-local"),
        ("-dp 4 --data-parallel-external-lb", "--data-parallel-rank"),
        ("-dp 4 -dpn 1 -dpl 2", "size-local 1"),
        ("-dp 4 --nnodes 2", "--nnodes"),
        ("-dp x", "'x'"),
        ("--port " + "9" * 5000, "'999"),
    ],
)
def test_ranks_that_cannot_be_are_refused(flags, word):
    with pytest.raises(PodError) as caught:
        found("vllm", "serve", "Q", *flags.split(), "--kv-events-config", VLLM_EVENTS)
    assert word in str(caught.value)
    assert len(str(caught.value)) < 300
