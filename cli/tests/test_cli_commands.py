"""The commands `steps`, `doctor` and `up`, and what all commands have in common."""

import json
import os
import signal
import subprocess

import pytest
from cli_helpers import KVSYNC, descendants_mentioning, invoke, one_line

from kvsync.errors import UsageProblemError
from kvsync.local.addresses import Network
from kvsync.local.manifests import read_resources
from kvsync.local.pods import plan_pods
from kvsync.local.selectors import selects
from kvsync.main import COMMANDS
from kvsync_testkit.waiting import wait_until

ENGINE = """
apiVersion: kvsync.dev/v1alpha1
kind: MockEngine
metadata: {name: NAME, namespace: NAMESPACE}
spec:
  replicas: 2
  model: {name: m}
  cache: {numGpuBlocks: 64}
  scheduler: {maxModelLen: 512}
  events: {dataParallelSize: RANKS, replayPort: 6557}
  debug: Enabled
"""
INDEX = """
---
apiVersion: kvsync.dev/v1alpha1
kind: PrefixIndex
metadata: {name: idx, namespace: NAMESPACE}
spec:
  selector: {matchLabels: {kvsync.dev/engine: NAME}}
  router: {policy: kv}
"""


def manifest(text, name="eng", namespace="default", ranks="1"):
    return text.replace("NAMESPACE", namespace).replace("NAME", name).replace("RANKS", ranks)


def test_every_command_has_help():
    for name in COMMANDS:
        code, out, err = invoke(name, "--help")
        assert (code, err) == (0, "")
        assert out.startswith(f"Usage: kvsync {name}")
    assert "kvsync, version" in invoke("--version")[1]


def test_without_arguments_the_help_is_printed():
    code, out, err = invoke()
    assert (code, err) == (0, "")
    assert out == invoke("--help")[1].replace("\n\n\n", "\n\n")
    assert out.count("\n") > len(COMMANDS)


@pytest.mark.parametrize("command", [("demo", "--requests", "5"), ("up", "-f", "r.yaml")])
@pytest.mark.parametrize("out", ["/proc/x", "r.yaml", "r.yaml/below"])
def test_an_output_folder_that_cannot_be_written_is_one_line(tmp_path, command, out):
    (tmp_path / "r.yaml").write_text(manifest(ENGINE))
    code, _, err = invoke(*command, "--out", out, cwd=tmp_path)
    assert code == 2
    assert one_line(err).startswith(f"kvsync: --out {out}: ")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("dmeo",), "no such command 'dmeo'; did you mean 'demo'?"),
        (("demo", "--egines", "3"), "--engines"),
        (("match",), "give a prompt or --tokens"),
        (("match", "--tokens", "1,x"), "'1,x'"),
        (("steps", "none.jsonl"), "none.jsonl"),
        (("up",), "--filename"),
    ],
)
def test_wrong_calls_are_one_line_and_exit_2(args, says):
    code, out, err = invoke(*args)
    assert (code, out) == (2, "")
    assert says in one_line(err)


def test_an_index_that_is_not_there_is_one_line():
    code, _, err = invoke("audit", "--index", "http://127.1.203.1:9")
    assert code == 1
    assert one_line(err).startswith("kvsync: index http://127.1.203.1:9: ")


def test_steps_writes_a_whole_log_or_none(tmp_path):
    scenario = tmp_path / "s.jsonl"
    scenario.write_text(
        '{"engine": {"num_gpu_blocks": 64, "max_model_len": 256}}\n'
        '{"id": "r0", "arrival_step": 0, "prompt": [{"prefix_id": 1, "n": 40}], "max_tokens": 2}\n'
    )
    code, out, err = invoke("steps", scenario)
    assert (code, err) == (0, "")
    assert json.loads(out.splitlines()[0])["scheduled"] == [["r0", 40]]
    assert invoke("steps", scenario, "-o", tmp_path / "log.jsonl")[0] == 0
    assert (tmp_path / "log.jsonl").read_text() == out
    scenario.write_text(scenario.read_text() + "{\n")
    (tmp_path / "log.jsonl").unlink()
    code, _, err = invoke("steps", scenario, "-o", tmp_path / "log.jsonl")
    assert code == 2
    assert "s.jsonl:3" in one_line(err)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.jsonl"]


def test_doctor_finds_this_machine_able():
    code, out, _ = invoke("doctor", "--json")
    findings = {finding["what"]: finding for finding in map(json.loads, out.splitlines())}
    assert findings["packages"]["level"] == "ok"
    assert findings["events sockets"]["level"] == "ok"
    assert findings["index core"]["detail"].startswith(("python", "native"))
    assert "make setup downloads packages" in findings["first build"]["detail"]
    assert "no run" in findings["running"]["detail"]
    assert code == (1 if any(finding["level"] == "problem" for finding in findings.values()) else 0)


@pytest.mark.parametrize(
    ("selector", "labels", "holds"),
    [
        ("", {}, True),
        ("a=b", {"a": "b"}, True),
        ("a=b,c=d", {"a": "b"}, False),
        ("a in (b,c),!d", {"a": "c"}, True),
        ("a in (b,c),!d", {"a": "c", "d": ""}, False),
        ("a notin (b)", {}, True),
        ("a", {"a": ""}, True),
        ("a", {}, False),
    ],
)
def test_selectors(selector, labels, holds):
    assert selects(selector, labels) is holds


def test_pods_are_planned_from_the_operators_objects(tmp_path):
    (tmp_path / "all.yaml").write_text(manifest(ENGINE, ranks="2") + manifest(INDEX))
    (tmp_path / "other.yaml").write_text(manifest(ENGINE, "other", "elsewhere"))
    network = Network.claim("127.1.204")
    network.release()
    pods = plan_pods(read_resources([tmp_path]), network, tmp_path / "out")
    assert [pod.name for pod in pods] == [
        "default.eng-engine-0",
        "default.eng-engine-1",
        "elsewhere.other-engine-0",
        "elsewhere.other-engine-1",
        "default.idx-index-0",
    ]
    engine, index = pods[1], pods[-1]
    (config,) = engine.files.values()
    assert "tcp://[::ffff:127.1.204.2]:5557" in config
    assert "replay_endpoint: tcp://127.1.204.2:6557" in config
    assert "--discover" not in index.spec.argv
    assert index.router_url == "http://127.1.204.5:8080"
    (publishers,) = index.files.values()
    assert publishers.count("name:") == 4
    assert "default.eng-engine-1/1" in publishers
    assert "tcp://127.1.204.2:6558" in publishers
    assert "other" not in publishers


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "x.yaml"),
        ("kind: Pod", "is not MockEngine or PrefixIndex"),
        (manifest(ENGINE).replace("replicas", "replica"), "did you mean 'replicas'"),
        (manifest(ENGINE) + "---\n" + manifest(ENGINE), "MockEngine eng is also in"),
        ("", "no MockEngine or PrefixIndex in"),
    ],
)
def test_bad_resources_are_one_line(tmp_path, text, says):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(UsageProblemError) as caught:
        read_resources([path])
    assert says in str(caught.value)
    code, _, err = invoke("up", "-f", path, cwd=tmp_path)
    assert code == 2
    assert one_line(err)


def test_up_runs_resources_restarts_what_dies_and_is_found_by_other_commands(tmp_path):
    (tmp_path / "r.yaml").write_text(manifest(ENGINE).replace("replicas: 2", "replicas: 1") + manifest(INDEX))
    command = [KVSYNC, "up", "-f", "r.yaml", "--out", str(tmp_path / "out")]
    started = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    state = tmp_path / "out" / "state.json"
    try:
        wait_until("ready", lambda: state.exists() or started.poll() is not None, deadline_s=90)
        pods = {pod["name"]: pod for pod in json.loads(state.read_text())}
        assert pods["idx-index-0"]["router_url"].endswith(":8080")
        code, _, err = invoke("up", "-f", "r.yaml", "--out", tmp_path / "out", cwd=tmp_path)
        assert code == 2
        assert "still runs; `kvsync stop --out" in one_line(err)
        assert f"index {pods['idx-index-0']['http_url']}" in invoke("doctor")[1]
        index = pods["idx-index-0"]["http_url"]
        code, out, err = invoke("audit", "--json", cwd="/")
        assert err == ""
        assert (code, [row["publisher"] for row in json.loads(out)["publishers"]]) == (0, ["eng-engine-0"])
        mark = str(tmp_path / "out" / "eng-engine-0")
        (victim,) = descendants_mentioning(mark)
        os.kill(victim, signal.SIGKILL)
        wait_until("restarted", lambda: descendants_mentioning(mark) not in ([], [victim]), deadline_s=60)
    finally:
        stopped = invoke("stop", cwd="/")
        out, err = started.communicate(timeout=60)
    assert started.returncode == 143
    assert stopped == (0, f"up in {tmp_path / 'out'}, index {index}: ended (1 process)\n", "")
    host = index.removeprefix("http://").rpartition(".")[0]
    assert f"eng-engine-0  http http://{host}.1:8000  events tcp://{host}.1:5557  replay tcp://{host}.1:6557" in out
    assert f"idx-index-0   http {index}  router http://{host}.2:8080" in out
    assert one_line(err).startswith("kvsync: interrupted")
    assert "2 pods are ready" in out
    assert descendants_mentioning(str(tmp_path / "out")) == []
    assert not state.exists()
