"""The pod as a process: start, refusals at start, and shutdown on signals."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess

import psutil
import pytest
import zmq
from mockpod_process import command, pod_process

from kvsync_events import decode_batch
from kvsync_testkit.ports import free_ports
from kvsync_testkit.waiting import wait_until


@pytest.fixture
def process():
    with contextlib.ExitStack() as stack:
        yield lambda *flags: stack.enter_context(pod_process(*flags))


@pytest.fixture
def reader():
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.linger = 0
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        yield socket


def get_health(connection):
    connection.request("GET", "/health")
    answer = connection.getresponse()
    answer.read()
    return answer.status


def receive_all_events(pod, reader):
    """Publish events until one arrives, then receive all of them, so that the subscriber misses no later event."""
    number = 0

    def arrives():
        nonlocal number
        body = {"prompt": list(range(90_000 + 16 * number, 90_016 + 16 * number)), "max_tokens": 1}
        number += 1
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", pod.port, timeout=30)) as connection:
            connection.request("POST", "/v1/completions", json.dumps(body))
            assert connection.getresponse().status == 200
        return reader.poll(20)

    wait_until("an event arrives", arrives)
    digest = wait_until("the pod is quiet", lambda: (found := pod.get("/debug/kv/digest"))["quiet"] and found)
    last = digest["seq"]["0"]
    while int.from_bytes(reader.recv_multipart()[1]) < last:
        pass


def test_a_pod_starts_within_its_memory_budget(process):
    pod = process()
    assert psutil.Process(pod.process.pid).memory_info().rss < 60 * 2**20
    assert pod.get("/v1/models")["data"][0]["id"] == "kvsync/mock"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_refuses_new_work_and_publishes_what_is_pending(process, reader, number):
    pod = process("--mock-latency", "none", "--max-num-seqs", "1")
    reader.connect(f"tcp://127.0.0.1:{pod.events}")
    receive_all_events(pod, reader)
    connection = http.client.HTTPConnection("127.0.0.1", pod.port, timeout=30)
    body = {"prompt": list(range(70_000, 70_100)), "max_tokens": 12_000, "ignore_eos": True, "stream": True}
    connection.request("POST", "/v1/completions", json.dumps(body))
    answer = connection.getresponse()
    answer.readline()
    idle = http.client.HTTPConnection("127.0.0.1", pod.port, timeout=30)
    idle.request("GET", "/health")
    idle.getresponse().read()
    os.kill(pod.process.pid, number)
    wait_until("the pod drains", lambda: get_health(idle) == 503)
    idle.request("POST", "/v1/completions", json.dumps({"prompt": "late"}))
    late = idle.getresponse()
    error = json.loads(late.read())
    assert late.status == 503
    assert error["error"]["type"] == "ServiceUnavailableError"
    streamed = answer.read()
    assert streamed.rstrip().endswith(b"[DONE]"), "the request in flight was allowed to end"
    assert b'"finish_reason":"length"' in streamed
    connection.close()
    idle.close()
    assert pod.wait() == 0
    assert [line["event"] for line in pod.log] == ["ready", "draining", "stopped"]
    expected = (100 + 12_000 - 1) // 16
    stored = 0
    while stored < expected:
        assert reader.poll(10_000), f"{stored} of {expected} blocks were announced"
        batch = decode_batch(reader.recv_multipart()[2])
        stored += sum(len(event.block_hashes) for event in batch.events)
    assert stored == expected, "every full block was announced before the end"


def test_the_drain_has_a_deadline(process):
    pod = process("--mock-drain-timeout", "0.2", "--mock-latency", '{"decode_us": 100000}')
    connection = http.client.HTTPConnection("127.0.0.1", pod.port, timeout=30)
    body = {"prompt": "x", "max_tokens": 32_000, "ignore_eos": True, "stream": True}
    connection.request("POST", "/v1/completions", json.dumps(body))
    answer = connection.getresponse()
    os.kill(pod.process.pid, signal.SIGTERM)
    assert b'"finish_reason":"abort"' in answer.read()
    connection.close()
    assert pod.wait() == 0
    assert any(line["event"].startswith("requests_aborted") for line in pod.log)


@pytest.mark.parametrize("taken", ["port", "events", "replay"])
def test_a_port_in_use_is_one_line_and_exit_code_1(taken):
    with socket.socket() as holder:
        holder.bind(("0.0.0.0", 0))
        holder.listen()
        port = holder.getsockname()[1]
        http_port, events, replay = free_ports(3)
        endpoints = {"endpoint": f"tcp://*:{events}", "replay_endpoint": f"tcp://*:{replay}"}
        flags = ["--port", str(port if taken == "port" else http_port)]
        if taken != "port":
            endpoints["endpoint" if taken == "events" else "replay_endpoint"] = f"tcp://*:{port}"
        flags += ["--kv-events-config", json.dumps({"enable_kv_cache_events": True, **endpoints})]
        ended = subprocess.run(command(*flags), capture_output=True, text=True, timeout=30)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert str(port) in ended.stderr
    assert "in use" in ended.stderr
