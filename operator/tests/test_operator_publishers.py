"""The operator asks a real index that has tokens and TLS, of which it knows neither the tokens nor the authority."""

import json
import subprocess

import aiohttp
import pytest

from kvsync_operator import names
from kvsync_operator.publishers import ask_index
from kvsync_testkit.processes import Index, stopping
from kvsync_testkit.waiting import until

ADDRESS = "127.94.7.1"


@pytest.fixture
def secured(tmp_path):
    """A running index with a token and a certificate, and without publishers."""
    cert, key, token = tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "token"
    token.write_text("secret-token\n")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=index", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    (tmp_path / "publishers.yaml").write_text(json.dumps([]))
    index = Index(folder=tmp_path, port=names.INDEX_PORT, token_file=token, tls_cert=cert, tls_key=key, host=ADDRESS)
    with stopping(index):
        yield index


async def test_the_status_needs_no_token_and_no_authority(secured):
    async with aiohttp.ClientSession() as session:

        async def report():
            found = await ask_index(session, [ADDRESS], tls=True)
            return found if found.error is None else None

        found = await until("the index reports", report, deadline_s=60)
        assert (found.total, found.live) == (0, 0)
        url = f"https://{ADDRESS}:{names.INDEX_PORT}/v1/publishers"
        async with session.get(url, ssl=False) as answer:
            assert answer.status == 401
        assert (await ask_index(session, [ADDRESS])).error is not None
