"""Addresses on the command line: a bad one is refused with its reason on one line, by every command that takes one."""

import pytest
from cli_helpers import invoke, one_line

from kvsync.addresses import check_endpoint, check_http_url, split_tcp
from kvsync.errors import UsageProblemError

BAD_URLS = {
    "http://h:70000": "a port is a number from 1 to 65535",
    "http://h:port": "a port is a number from 1 to 65535",
    "h:0": "a port is a number from 1 to 65535",
    "http://": "has no host",
    "": "has no host",
    "http://user@:1": "has no host",
    "ftp://h": "the scheme is http or https, not 'ftp'",
    "http://[::1": "Invalid IPv6 URL",
    "http://a b": "contains a space",
    "http://h:80/?x": "no query",
}
BAD_ENDPOINTS = {
    "h:5557": "must be tcp://HOST:PORT or ipc://PATH",
    "tcp://h": "must be tcp://HOST:PORT or ipc://PATH",
    "tcp://h:70000": "'70000' is not a port",
    "tcp://h:0": "'0' is not a port",
    "tcp://h:x": "'x' is not a port",
    "tcp://:5": "has no host",
    "tcp://a b:5": "contains a space",
    "tcp://[::1:5": "both brackets",
    "ipc://": "has no path",
}


@pytest.mark.parametrize("text", BAD_URLS)
@pytest.mark.parametrize(
    "command",
    [("match", "hello", "--index"), ("audit", "--index"), ("replay", "trace.jsonl", "--requests", "1", "--target")],
)
def test_a_bad_url_is_one_line(command, text, tmp_path):
    line = '{"timestamp": 0, "input_length": 512, "output_length": 1, "hash_ids": [1]}'
    (tmp_path / "trace.jsonl").write_text(line + "\n")
    code, out, err = invoke(*command, text, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert one_line(err).startswith(f"kvsync: {command[-1]} {text!r}: ")
    assert BAD_URLS[text] in err


@pytest.mark.parametrize("text", BAD_ENDPOINTS)
@pytest.mark.parametrize("before", [(), ("--bind",), ("--bind", "tcp://127.0.0.1:1", "--replay")])
def test_a_bad_endpoint_is_one_line(before, text):
    code, out, err = invoke("tail", *before, text)
    assert (code, out) == (2, "")
    assert one_line(err).startswith(f"kvsync: endpoint {text!r}: ")
    assert BAD_ENDPOINTS[text] in err


def test_good_addresses_are_accepted():
    assert check_http_url("h:8090", "--index") == "http://h:8090"
    assert check_http_url("https://[::1]:1/base/", "--index") == "https://[::1]:1/base"
    check_endpoint("tcp://*:5557", bind=True)
    check_endpoint("ipc:///run/events")
    check_endpoint("tcp://[::1]:5557")
    assert split_tcp("tcp://[::1]:5557") == ("::1", 5557)
    with pytest.raises(UsageProblemError, match="--bind"):
        check_endpoint("tcp://*:5557")


@pytest.mark.parametrize("text", ["tcp://no-such-host.invalid:5", "tcp://[::ffff:203.0.113.1]:5", "ipc:///no/such/x"])
def test_an_address_of_another_machine_cannot_be_bound(text):
    code, _, err = invoke("tail", "--bind", text)
    assert code == 2
    assert one_line(err).startswith(f"kvsync: cannot bind {text}: ")
    assert "addr=" not in err
