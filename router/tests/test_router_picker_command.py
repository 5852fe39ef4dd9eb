"""`kvsync-epp` and `kvsync-indexer --epp-port`: flags, ports, certificates, health, and an orderly end."""

import asyncio
import contextlib
import datetime as dt
import json
import socket
import subprocess
import sys

import aiohttp
import click
import grpc
import pytest
import structlog
from cryptography import x509
from envoy.service.ext_proc.v3.external_processor_pb2_grpc import ExternalProcessorStub
from grpc_health.v1 import health_pb2, health_pb2_grpc
from picker_helpers import PROMPT, address, destination, request_body, request_headers, running_picker
from router_helpers import MODEL, FakeIndex, running_engines

from kvsync_indexer.errors import ConfigError
from kvsync_router.errors import RouterConfigError
from kvsync_router.picker import main as command
from kvsync_router.picker.credentials import self_signed, server_credentials
from kvsync_router.picker.endpoints import choose_directory
from kvsync_router.picker.front import picker_front
from kvsync_router.picker.processor import SERVICE
from kvsync_testkit.ports import free_port, free_ports
from kvsync_testkit.processes import HttpPort
from kvsync_testkit.waiting import until

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def certificate_folder(folder, number=1):
    key, certificate = self_signed(NOW)
    folder.mkdir(exist_ok=True)
    (folder / "tls.key").write_bytes(key)
    (folder / "tls.crt").write_bytes(certificate)
    return certificate


@pytest.fixture
def publishers(tmp_path):
    path = tmp_path / "publishers.yaml"
    path.write_text("[]")
    return path


@pytest.fixture
def no_cluster(tmp_path, monkeypatch):
    """No kubeconfig and no service account."""
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ([], "give --index-url, --pool-name or --publishers: the picker has no endpoints without"),
        (["--pool-name", "lab"], "--pool-name: no service account and no usable kubeconfig"),
        (["--polcy", "kv"], "No such option '--polcy'. Did you mean '--policy'?"),
        (
            ["--index-url", "http://x", "--policy", "best"],
            "router: policy = 'best': input should be 'kv', 'least_request'",
        ),
        (["--index-url", "http://x", "--grpc-port", "70000"], "70000 is not in the range 0<=x<=65535"),
        (["--index-url", "http://x", "--prefill-weight", "-1"], "router: prefill_weight = -1.0"),
        (["--index-url", "http://x", "--secure-serving=maybe"], "'maybe' is not a valid boolean"),
        (["--publishers", "/nowhere"], "--publishers /nowhere: No such file or directory"),
        (
            ["--index-url", "http://x", "--cert-path", "/nowhere"],
            "--cert-path /nowhere: /nowhere/tls.crt: No such file",
        ),
    ],
)
def test_a_bad_flag_is_one_line_and_exit_code_2(flags, problem, capsys, no_cluster):
    ports = ["--grpc-health-port", "0", "--metrics-port", "0"]
    ports += [] if "--grpc-port" in flags else ["--grpc-port", "0"]
    assert command.main([*ports, *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("kvsync-epp: ")
    assert error.count("\n") == 1
    assert problem in error


def test_the_index_lists_the_endpoints_where_there_is_no_api_server(no_cluster):
    with structlog.testing.capture_logs() as lines:
        assert choose_directory("http://x", None, "lab", "default") is None
    assert [line["event"] for line in lines] == ["pool_not_followed"]


def test_a_taken_port_is_named(publishers, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        flags = ["--host", "127.0.0.1", "--publishers", str(publishers), "--grpc-port", port]
        assert command.main(flags) == 2
    assert f"kvsync-epp: --grpc-port {port}: cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err


def test_a_self_signed_certificate_is_valid_for_ten_years():
    _, pem = self_signed(NOW)
    certificate = x509.load_pem_x509_certificate(pem)
    assert certificate.not_valid_before_utc < NOW < certificate.not_valid_after_utc
    assert certificate.not_valid_after_utc.year == 2035


@pytest.mark.parametrize("damage", ["other key", "no key", "no certificate", "text"])
def test_certificates_that_cannot_be_used_are_refused(tmp_path, damage):
    certificate_folder(tmp_path)
    if damage == "other key":
        (tmp_path / "tls.key").write_bytes(self_signed(NOW)[0])
    elif damage == "text":
        (tmp_path / "tls.crt").write_text("text")
    else:
        (tmp_path / ("tls.key" if damage == "no key" else "tls.crt")).unlink()
    with pytest.raises(RouterConfigError, match=r"^--cert-path .*tls"):
        server_credentials(tmp_path)


async def pick_over_tls(port, certificate):
    """The destination, over a connection that verifies the certificate."""
    trusted = grpc.ssl_channel_credentials(certificate)
    options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", trusted, options=options) as channel:
        stream = ExternalProcessorStub(channel).Process()
        await stream.write(request_headers())
        await stream.write(request_body(PROMPT))
        answer = await stream.read()
        stream.cancel()
        return destination(answer)


async def test_a_given_certificate_is_served_and_a_new_one_is_taken_over(tmp_path):
    first = certificate_folder(tmp_path)
    async with (
        running_engines("a") as (a,),
        running_picker([a], credentials=server_credentials(tmp_path)) as gateway,
    ):
        assert await pick_over_tls(gateway.port, first) == address(a)
        second = certificate_folder(tmp_path)
        assert await pick_over_tls(gateway.port, second) == address(a)


async def test_health_follows_the_endpoints():
    async with running_engines("a") as (a,), running_picker([a]) as gateway:
        stub = health_pb2_grpc.HealthStub(gateway._channel)

        async def status(service):
            return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status

        for service in ("", "liveness", "readiness", SERVICE):
            assert await status(service) == health_pb2.HealthCheckResponse.SERVING
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="readiness"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        await a.stop()
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await status(SERVICE) == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await status("liveness") == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await status("other")
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_open_streams_are_finished_before_the_picker_ends():
    async with running_engines("a") as (a,), running_picker([a]) as gateway:
        _, stream = await gateway.ask(request_headers(), request_body(PROMPT, end=False), answers=0)
        await until("the stream is open", lambda: gateway.picker.processor.streams == 1)
        gateway.picker.stop(at_once=False)
        await stream.write(request_body(b""))
        assert destination(await stream.read()) == address(a)
        assert (await stream.read()).HasField("request_body")
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF


async def test_the_command_serves_tls_health_and_metrics_and_ends_with_sigterm(tmp_path):
    certificate = certificate_folder(tmp_path / "cert")
    async with running_engines("a") as (a,):
        publishers = tmp_path / "publishers.yaml"
        entry = {"name": "a", "model": MODEL, "endpoint": "tcp://127.0.0.1:1", "http_url": a.url}
        publishers.write_text(json.dumps([entry]))
        port, health, metrics = free_ports(3)
        flags = ["--host", "127.0.0.1", "--publishers", publishers, "--cert-path", tmp_path / "cert"]
        flags += ["--grpc-port", port, "--grpc-health-port", health, "--metrics-port", metrics]
        flags += ["--pool-name", "p", "--pool-namespace", "n"]
        log = tmp_path / "picker.log"
        picker = EndpointPicker(metrics, flags, log)
        try:
            await asyncio.to_thread(picker.ready, "/readyz")
            assert await pick_over_tls(port, certificate) == address(a)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{health}") as channel:
                answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=SERVICE))
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
            assert await asyncio.to_thread(picker.metric, "kvsync_router_fallbacks_total") == 1.0
        finally:
            code = await asyncio.to_thread(picker.stop)
        assert code == 0
        assert [json.loads(line)["event"] for line in log.read_text().splitlines()] == ["picker_listens"] * 2


class EndpointPicker(HttpPort):
    """`kvsync-epp` as a process; its HTTP port is that of its metrics."""

    def __init__(self, metrics_port, flags, log):
        super().__init__(metrics_port)
        command = [sys.executable, "-m", "kvsync_router.picker.main", *map(str, flags)]
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, stderr=out)

    def stop(self):
        self.process.terminate()
        return self.process.wait(30)


def open_front(**values):
    defaults = click.Command("index", params=list(picker_front.options())).make_context("index", []).params
    return picker_front.open({**defaults, **values}, host="127.0.0.1", index_port=8090)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"epp_port": 8090}, "--epp-port 8090: is the index's own port; choose another"),
        ({"epp_port": 70000}, "--epp-port 70000: must be between 0 and 65535"),
        ({"epp_port": 0, "epp_health_port": -1}, "--epp-health-port -1: must be between 0 and 65535"),
        ({"epp_port": 0, "epp_pool_namespace": "x"}, "--epp-pool-namespace: needs --epp-pool-name"),
        ({"epp_port": 0, "epp_pool_name": "x"}, "--epp-pool-name: no service account and no usable kubeconfig"),
        ({"epp_policy": "x"}, "router: policy = 'x': input should be 'kv', 'least_request'"),
    ],
)
def test_the_flags_of_the_front_are_refused_in_one_line(values, problem, no_cluster):
    with pytest.raises(ConfigError) as caught:
        open_front(**values)
    assert str(caught.value).startswith(problem)


def test_without_a_port_there_is_no_front():
    assert open_front() is None


def test_a_front_that_is_closed_gives_its_ports_back():
    port, health = free_ports(2)
    for _ in range(2):
        open_front(epp_port=port, epp_health_port=health).close()


async def test_the_front_serves_on_the_index():
    port = free_port()
    async with running_engines("a", "b") as (a, b):
        server = open_front(epp_port=port, epp_secure_serving=False).server(FakeIndex([a, b], {"b": 3}))
        serving = asyncio.create_task(server.serve())
        try:
            await until("the picker started", lambda: server.started or serving.done())
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stream = ExternalProcessorStub(channel).Process()
                await stream.write(request_headers())
                await stream.write(request_body(PROMPT))
                assert destination(await stream.read()) == f"{address(b)},{address(a)}"
                stream.cancel()
        finally:
            server.stop(at_once=True)
            await serving


async def test_the_front_serves_its_metrics_too():
    port, metrics = free_ports(2)
    async with running_engines("a") as (a,), aiohttp.ClientSession() as session:
        server = open_front(epp_port=port, epp_metrics_port=metrics, epp_secure_serving=False).server(FakeIndex([a]))
        serving = asyncio.create_task(server.serve())

        async def status(path):
            with contextlib.suppress(aiohttp.ClientConnectionError):
                async with session.get(f"http://127.0.0.1:{metrics}{path}") as response:
                    return response.status
            return 0

        async def is_ready():
            return await status("/readyz") == 200

        try:
            await until("the picker is ready", is_ready)
            assert await status("/metrics") == 200
        finally:
            server.stop(at_once=True)
            await serving


def test_the_proxy_and_the_index_do_not_import_grpc():
    code = (
        "import sys, kvsync_router.proxy.main, kvsync_router.picker.front, kvsync_router.picker.main;"
        "sys.exit(any(name.split('.')[0] in ('grpc', 'envoy', 'cryptography') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
