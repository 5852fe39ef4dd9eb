"""Bearer tokens and TLS of the HTTP API."""

import os
import ssl
import subprocess
import sys

import pytest
from starlette.testclient import TestClient

from kvsync_indexer.access import RECHECK_S, Access, Area, area_of
from kvsync_indexer.api import MatchRequest
from kvsync_indexer.client import IndexClient, IndexRefusedError, IndexUnreachableError
from kvsync_indexer.config import IndexerConfig
from kvsync_indexer.errors import ConfigError
from kvsync_indexer.main import main
from kvsync_indexer.service.app import IndexApp
from kvsync_indexer.service.operations import OPERATIONS
from kvsync_indexer.service.service import IndexService
from kvsync_testkit.ports import free_port
from kvsync_testkit.waiting import wait_until

OPEN = {"/healthz", "/readyz", "/metrics", "/openapi.json"}


def write(path, text):
    path.write_text(text)
    return path


# -- tokens --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "area"),
    [
        ("/healthz", None), ("/metrics", None), ("/ui", None), ("/", None),
        ("/v1/match", Area.QUERY), ("/v1/publishers", Area.QUERY), ("/v1/publishers/a/b", Area.QUERY),
        ("/v1/publishers/a/blocks", Area.DUMP), ("/v1/publishers/a/blocks/", Area.DUMP),
        ("/v1/publishers/a/b/digest", Area.DUMP), ("/v1/snapshot", Area.DUMP), ("/v1/snapshot/", Area.DUMP),
        ("/v1/audit", Area.AUDIT), ("/v1/audit/", Area.AUDIT), ("/v1/publishers/a/b/resync", Area.AUDIT),
        ("/v1/something-new", Area.QUERY), ("/v1", Area.QUERY),
    ],
)  # fmt: skip
def test_every_path_has_an_area(path, area):
    assert area_of(path) is area


def test_areas_have_their_own_tokens_or_those_of_queries(tmp_path):
    files = {Area.QUERY: write(tmp_path / "q", "q1\nq2\n"), Area.AUDIT: write(tmp_path / "a", "a1"), Area.DUMP: None}
    access = Access(files, lambda: 0.0)
    allowed = {
        (path, token): access.allows(path, b"Bearer " + token)
        for path in ("/v1/match", "/v1/audit", "/v1/snapshot", "/healthz")
        for token in (b"q1", b"q2", b"a1", b"", b"q")
    }
    assert {key for key, may in allowed.items() if may} == {
        ("/v1/match", b"q1"), ("/v1/match", b"q2"), ("/v1/snapshot", b"q1"), ("/v1/snapshot", b"q2"),
        ("/v1/audit", b"a1"), *(("/healthz", token) for token in (b"q1", b"q2", b"a1", b"", b"q")),
    }  # fmt: skip
    for header in (None, b"q1", b"Basic q1", b"bearer  q1 "):
        assert access.allows("/v1/match", header) == (header == b"bearer  q1 ")
    assert access.token(Area.DUMP) == "q1"


def test_without_tokens_everything_is_open(tmp_path):
    access = Access(dict.fromkeys(Area), lambda: 0.0)
    assert not access.limited
    assert access.allows("/v1/snapshot", None)
    only_dumps = Access({Area.DUMP: write(tmp_path / "d", "d")}, lambda: 0.0)
    assert only_dumps.allows("/v1/match", None)
    assert not only_dumps.allows("/v1/snapshot", None)


def test_a_token_file_is_read_again_and_a_broken_one_changes_nothing(tmp_path):
    now = [0.0]
    file = write(tmp_path / "t", "old")
    access = Access({Area.QUERY: file}, lambda: now[0])
    write(file, "new and-older")
    assert access.allows("/v1/match", b"Bearer old")  # not looked at yet
    now[0] = RECHECK_S
    assert not access.allows("/v1/match", b"Bearer old")
    assert access.allows("/v1/match", b"Bearer new")
    write(file, "")
    now[0] = 2 * RECHECK_S
    assert access.allows("/v1/match", b"Bearer and-older")
    file.unlink()
    now[0] = 3 * RECHECK_S
    assert access.allows("/v1/match", b"Bearer new")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--token-file", "none"], "--token-file none: No such file or directory"),
        (["--dump-token-file", "empty"], "--dump-token-file empty: is empty"),
        (["--tls-cert", "empty"], "--tls-cert and --tls-key: give both or none of them"),
        (["--tls-client-ca", "empty"], "--tls-client-ca: needs --tls-cert and --tls-key"),
        (["--tls-cert", "empty", "--tls-key", "empty"], "--tls-cert empty: "),
    ],
)
def test_unusable_files_end_the_start_with_one_line(tmp_path, monkeypatch, capsys, flags, says):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "empty", "")
    write(tmp_path / "p.yaml", "[]")
    assert main(["--publishers", "p.yaml", "--port", str(free_port()), *flags]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_every_operation_that_is_not_open_needs_a_token(tmp_path):
    tokens = write(tmp_path / "t", "secret")
    service = IndexService(IndexerConfig.parse({"publishers": write(tmp_path / "p", "[]"), "token_file": tokens}))
    service.ingest.start()
    try:
        client = TestClient(IndexApp(service))
        for operation in OPERATIONS:
            path = operation.path.replace("{name}", "x")
            ask = {"method": operation.method, "url": path, "json": {}} if operation.takes else {
                "method": operation.method, "url": path,
            }  # fmt: skip
            refused = client.request(**ask).status_code == 401
            assert refused == (path not in OPEN), path
            assert client.request(**ask, headers={"authorization": "Bearer secret"}).status_code != 401
        answer = client.get("/v1/publishers")
        assert (answer.headers["www-authenticate"], list(answer.json())) == ("Bearer", ["error"])
    finally:
        service.ingest.stop()


def test_a_running_index_asks_for_tokens_on_its_quick_path_too(mock_engine, index, tmp_path):
    engine = mock_engine()
    tokens = write(tmp_path / "tokens", "secret")
    running = index(engine, dump_token_file=tokens)  # queries stay open, as the fixture asks without a token
    query = MatchRequest(engine.model, token_ids=[1, 2])
    with IndexClient(running.url) as client, IndexClient(running.url, token="secret") as admitted:
        assert client.match(query)
        with pytest.raises(IndexRefusedError, match="status 401: a valid bearer token is needed"):
            client.snapshot()
        assert admitted.snapshot()
    port = free_port()
    limited = start(tmp_path, port, "--token-file", str(tokens))
    try:
        with IndexClient(f"http://127.0.0.1:{port}") as client, IndexClient(client.url, token="secret") as admitted:
            wait_until(
                "the index answers", lambda: client.health().ok, deadline_s=60, retry_on=(IndexUnreachableError,)
            )
            with pytest.raises(IndexRefusedError, match="status 401"):
                client.match(query)
            assert admitted.match(query).matches == []
    finally:
        limited.kill()
        limited.wait()


def start(folder, port, *flags):
    """An index without publishers."""
    file = write(folder / f"p{port}.yaml", "[]")
    command = ["kvsync_indexer.main", "--host", "127.0.0.1", "--port", str(port), "--publishers", str(file), *flags]
    return subprocess.Popen([sys.executable, "-m", *command], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def test_debug_endpoints_and_faults_have_tokens_of_their_own(mock_engine, index, tmp_path):
    debug, fault = write(tmp_path / "debug", "debug-token"), write(tmp_path / "fault", "fault-token")
    engine = mock_engine(mock_debug_token_file=debug, mock_fault_token_file=fault)
    for path in ("/debug/kv/blocks", "/debug/kv/digest", "/debug/faults"):
        assert engine.ask("GET", path)[0] == 401
    engine.complete(list(range(64)))
    for flags, verdict in (
        ({}, "unreachable"),
        ({"debug_token_file": debug}, "equal"),
        ({"debug_token_file": fault}, "unreachable"),
    ):
        running = index(engine, **flags)
        (audit,) = running.ok("POST", "/v1/audit", {"wait_quiet_s": 5})["publishers"]
        assert audit["verdict"] == verdict
    assert "401" in audit["detail"]


# -- TLS -----------------------------------------------------------------------------------------------------------


def openssl(*arguments, folder):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def certificate(folder, name, *more):
    openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
        f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{name}.key", "-out", f"{name}.crt", *more,
        folder=folder,
    )  # fmt: skip
    return folder / f"{name}.crt", folder / f"{name}.key"


def trusting(cert, client=None):
    context = ssl.create_default_context(cafile=str(cert))
    if client is not None:
        context.load_cert_chain(*client)
    return context


def test_tls_with_and_without_client_certificates(tmp_path):
    server, client, stranger = (certificate(tmp_path, name) for name in ("server", "client", "stranger"))
    port = free_port()
    flags = ("--tls-cert", str(server[0]), "--tls-key", str(server[1]), "--tls-client-ca", str(client[0]))
    running = start(tmp_path, port, *flags)
    url = f"https://127.0.0.1:{port}"
    query = MatchRequest("m", token_ids=[1])
    try:
        with (
            IndexClient(url, tls=trusting(server[0], client)) as good,
            IndexClient(url, tls=trusting(server[0])) as bare,
        ):
            wait_until("the index answers", lambda: bare.health().ok, deadline_s=60, retry_on=(IndexUnreachableError,))
            assert good.match(query).matches == []  # the quick path
            assert good.publishers() == []
            for ask in (lambda: bare.match(query), bare.publishers):
                with pytest.raises(IndexRefusedError, match="status 403: a client certificate is needed"):
                    ask()
        for other in (trusting(stranger[0]), ssl.create_default_context(), trusting(server[0], stranger)):
            with IndexClient(url, tls=other) as refused, pytest.raises(IndexUnreachableError):
                refused.publishers()
        with IndexClient(url.replace("https", "http")) as plain, pytest.raises(IndexUnreachableError):
            plain.health()
    finally:
        running.kill()
        running.wait()


def test_a_key_with_a_password_is_refused_and_not_asked_for(tmp_path):
    cert, key = certificate(tmp_path, "server")
    locked = tmp_path / "locked.key"
    openssl("ec", "-in", str(key), "-out", str(locked), "-aes256", "-passout", "pass:x", folder=tmp_path)
    config = {"publishers": tmp_path / "p", "tls_cert": cert, "tls_key": locked}
    with pytest.raises(ConfigError, match="the key has a password"):
        IndexerConfig.parse(config).tls().context()


def test_a_new_certificate_is_noticed(tmp_path):
    cert, key = certificate(tmp_path, "server")
    tls = IndexerConfig.parse({"publishers": tmp_path / "p", "tls_cert": cert, "tls_key": key}).tls()
    before, context = tls.stamp(), tls.context()
    os.utime(cert, ns=(1, 1))
    assert tls.stamp() != before
    tls.load(context)
    cert.unlink()
    assert tls.stamp() is None
