"""What protects the process: forbidden addresses, brief log lines, a reserve of descriptors, keys that stay secret."""

import json
import resource
import socket
import subprocess
import sys

import aiohttp
import pytest
import structlog

from kvsync_indexer.addresses import forbidden, guarded_connector
from kvsync_indexer.engine_keys import read_api_key
from kvsync_indexer.errors import ConfigError
from kvsync_indexer.logs import MAX_TEXT, brief_traceback, configure_logging
from kvsync_indexer.publishers_file import parse_publishers
from kvsync_testkit.ports import free_port
from kvsync_testkit.processes import HttpPort
from kvsync_testkit.waiting import wait_until

LIMIT = 128


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "fe80::1%eth0", "[fe80::1]", "::ffff:169.254.169.254", "fd00:ec2::254", "100.100.100.200"],
)
def test_metadata_addresses_are_forbidden(host):
    assert forbidden(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.1", "::1", "engine.example", "fd00::1", ""])
def test_other_addresses_are_not(host):
    assert not forbidden(host)


async def test_a_forbidden_address_is_never_connected_to():
    async with aiohttp.ClientSession(connector=guarded_connector(1)) as session:
        with pytest.raises(aiohttp.ClientConnectorError, match="metadata"):
            await session.get("http://169.254.169.254/latest")


@pytest.mark.parametrize("field", ["http_url", "debug_url"])
def test_a_publisher_at_a_metadata_address_is_refused(field):
    text = f"- {{name: a, model: m, endpoint: 'tcp://h:1', {field}: 'http://169.254.169.254/x'}}"
    with pytest.raises(ConfigError, match="is a link-local or metadata address"):
        parse_publishers(text, "file")


def test_the_key_of_a_publisher_is_in_no_text():
    (spec,) = parse_publishers("- {name: a, model: m, endpoint: 'tcp://h:1', api_key: s3cret}", "file")
    assert spec.api_key == "s3cret"
    assert "s3cret" not in repr(spec)


def test_a_key_comes_from_a_flag_or_a_file(tmp_path):
    path = tmp_path / "key"
    path.write_text("s3cret\n")
    assert read_api_key(None, path) == read_api_key("s3cret", None) == "s3cret"
    assert read_api_key(None, None) is None
    for key, file in (("x", path), (None, tmp_path / "none"), (None, tmp_path)):
        with pytest.raises(ConfigError, match=r"^--engine-api-key"):
            read_api_key(key, file)
    path.write_text("")
    with pytest.raises(ConfigError, match="must hold one key"):
        read_api_key(None, path)


def fail(salt):
    raise ValueError("no " * 1000) if salt else KeyError(salt)


def test_a_traceback_shows_no_locals_and_stays_short():
    try:
        fail("s3cret")
    except ValueError as error:
        text = brief_traceback((type(error), error, error.__traceback__))
    assert "s3cret" not in text.replace('fail("s3cret")', "")
    assert len(text) < 2000


def test_no_log_line_grows_with_its_values(capsys):
    before = structlog.get_config()
    try:
        configure_logging("info")
        log = structlog.get_logger()
        log.warning("event_name", text="x" * 100_000)
        try:
            fail("s3cret")
        except ValueError:
            log.exception("failed")
    finally:
        structlog.configure(**before)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert len(lines[0]["text"]) == MAX_TEXT + 1
    assert len(lines[1]["exception"]) < 2000


def limit_descriptors():
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT))


def test_health_and_metrics_answer_when_clients_hold_all_descriptors(tmp_path):
    path = tmp_path / "publishers.yaml"
    path.write_text("[]")
    index = HttpPort(free_port())
    flags = ("--publishers", str(path), "--host", "127.0.0.1", "--port", str(index.port))
    process = subprocess.Popen([sys.executable, "-m", "kvsync_indexer.main", *flags], preexec_fn=limit_descriptors)
    held = []
    try:
        index.ready("/healthz")
        held = [socket.create_connection(("127.0.0.1", index.port)) for _ in range(2 * LIMIT)]
        answers = {}

        def answered(name):
            answers[name] = index.ask("GET", name)[0]
            return answers[name] in (200, 503)

        for name in ("/healthz", "/metrics", "/readyz"):
            wait_until(f"{name} answers", lambda name=name: answered(name), deadline_s=30, retry_on=(OSError,))
        assert (answers["/healthz"], answers["/metrics"]) == (200, 200)
        wait_until("other paths are refused", lambda: index.ask("GET", "/v1/publishers")[0] == 503, retry_on=(OSError,))
        while held:
            held.pop().close()
        wait_until("other paths are served", lambda: index.ask("GET", "/v1/publishers")[0] == 200, retry_on=(OSError,))
    finally:
        for one in held:
            one.close()
        process.terminate()
        assert process.wait(30) == 0
