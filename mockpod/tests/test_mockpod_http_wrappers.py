"""Pages of other origins, request ids and TLS, as `vllm serve` has them on request."""

import ssl
import subprocess
from pathlib import Path

import aiohttp
import pytest
from mockpod_helpers import make_config, start_pod

from kvsync_mockpod.errors import ConfigError
from kvsync_mockpod.tls import tls_settings

PAGE = "https://page.example"


async def preflight(pod, origin=PAGE, method="POST", headers="authorization"):
    given = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    async with pod.client.options(f"{pod.url}/v1/models", headers=given) as answer:
        return answer.status, answer.headers, await answer.text()


async def ask(pod, **headers):
    async with pod.client.get(f"{pod.url}/v1/models", headers=headers) as answer:
        return answer.status, answer.headers


async def test_without_origins_no_page_may_ask():
    async with start_pod() as pod:
        status, _, text = await preflight(pod)
        assert (status, text) == (400, "Disallowed CORS origin")
        status, headers = await ask(pod, Origin=PAGE)
        assert status == 200
        assert not [name for name in headers if name.lower().startswith("access-control")]


async def test_any_page_may_ask():
    async with start_pod(allowed_origins='["*"]') as pod:
        status, headers, text = await preflight(pod)
        assert (status, text) == (200, "OK")
        assert headers["access-control-allow-origin"] == "*"
        assert headers["access-control-allow-headers"] == "authorization"
        assert "POST" in headers["access-control-allow-methods"]
        _, headers = await ask(pod, Origin=PAGE)
        assert headers["access-control-allow-origin"] == "*"
        _, headers = await ask(pod)
        assert "access-control-allow-origin" not in headers


async def test_named_pages_methods_and_headers():
    rules = {"allowed_origins": [PAGE], "allowed_methods": ["GET"], "allowed_headers": ["X-Own"]}
    async with start_pod(**rules, allow_credentials=True) as pod:
        status, headers, _ = await preflight(pod, method="GET", headers="x-own, content-type")
        assert status == 200
        assert headers["access-control-allow-origin"] == PAGE
        assert headers["access-control-allow-credentials"] == "true"
        status, _, text = await preflight(pod, origin="https://other.example", headers="x-other")
        assert (status, text) == (400, "Disallowed CORS origin, method, headers")
        _, headers = await ask(pod, Origin=PAGE)
        assert (headers["access-control-allow-origin"], headers["vary"]) == (PAGE, "Origin")
        _, headers = await ask(pod, Origin="https://other.example")
        assert "access-control-allow-origin" not in headers


async def test_request_ids_are_returned_or_made():
    async with start_pod(enable_request_id_headers=True) as pod:
        _, headers = await ask(pod, **{"X-Request-Id": "mine"})
        assert headers.getall("x-request-id") == ["mine"]
        made = {(await ask(pod))[1]["x-request-id"] for _ in range(2)}
        assert len(made) == 2
    async with start_pod() as pod:
        _, headers = await ask(pod, **{"X-Request-Id": "mine"})
        assert "x-request-id" not in headers


async def test_the_description_may_be_switched_off():
    async with start_pod(disable_fastapi_docs=True) as pod:
        assert (await pod.get("/openapi.json"))[0] == 404


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


async def test_https_is_served_with_the_certificate(certificate):
    cert, key = certificate
    async with start_pod(ssl_certfile=cert, ssl_keyfile=key) as pod:
        url = pod.url.replace("http://", "https://") + "/v1/completions"
        trusting = ssl.create_default_context(cafile=str(cert))
        body = {"model": "kvsync/mock", "prompt": [1, 2, 3], "max_tokens": 3}
        async with pod.client.post(url, json=body, ssl=trusting) as answer:
            assert (answer.status, (await answer.json())["usage"]["completion_tokens"]) == (200, 3)
        with pytest.raises(aiohttp.ClientSSLError):
            await pod.client.get(url, ssl=ssl.create_default_context())


async def test_a_client_without_a_certificate_may_be_refused(certificate):
    cert, key = certificate
    required = {"ssl_ca_certs": cert, "ssl_cert_reqs": 2}
    async with start_pod(ssl_certfile=cert, ssl_keyfile=key, **required) as pod:
        url = pod.url.replace("http://", "https://") + "/health"
        stranger, known = (ssl.create_default_context(cafile=str(cert)) for _ in range(2))
        known.load_cert_chain(cert, key)
        async with pod.client.get(url, ssl=known) as answer:
            assert answer.status == 200
        with pytest.raises(aiohttp.ClientError):
            await pod.client.get(url, ssl=stranger)


@pytest.mark.parametrize(
    ("field", "value"),
    [("ssl_certfile", "no/such.pem"), ("ssl_ca_certs", "no/such.pem"), ("ssl_ciphers", "nonsense")],
)
def test_a_bad_tls_setting_is_one_line(certificate, field, value):
    cert, key = certificate
    with pytest.raises(ConfigError, match=f"{field}: '{value}' refused: ") as caught:
        tls_settings(make_config(**{"ssl_certfile": cert, "ssl_keyfile": key, field: value}))
    assert "\n" not in str(caught.value)
