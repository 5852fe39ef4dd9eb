import pytest

from kvsync_events import EndpointError, publisher_binds, rank_endpoint


@pytest.mark.parametrize(
    ("endpoint", "binds"),
    [
        ("tcp://*:5557", True),
        ("tcp://[::]:5557", True),
        ("tcp://[::1]:5557", True),
        ("ipc:///run/kv.sock", True),
        ("inproc://kv", True),
        ("tcp://0.0.0.0:5557", False),
        ("tcp://127.0.0.1:5557", False),
        ("tcp://index.default.svc:5557", False),
    ],
)
def test_who_binds(endpoint, binds):
    assert publisher_binds(endpoint) is binds


@pytest.mark.parametrize(
    ("endpoint", "rank", "expected"),
    [
        ("tcp://*:5557", 0, "tcp://*:5557"),
        ("tcp://*:5557", 3, "tcp://*:5560"),
        ("tcp://[::]:5557", 1, "tcp://[::]:5558"),
        ("tcp://*:0", 2, "tcp://*:0"),
        ("inproc://kv", 2, "inproc://kv_dp2"),
        ("ipc:///run/kv.sock", 0, "ipc:///run/kv.sock"),
        ("", 1, ""),
    ],
)
def test_endpoint_of_a_rank(endpoint, rank, expected):
    assert rank_endpoint(endpoint, rank) == expected


@pytest.mark.parametrize(
    ("endpoint", "rank", "words"),
    [
        ("ipc:///run/kv.sock", 1, "only tcp and inproc"),
        ("tcp://host:port", 1, "does not end in a port"),
        ("tcp://host:65535", 1, "no port 65536"),
        ("tcp://host:1", -1, "negative"),
    ],
)
def test_endpoint_without_such_a_rank(endpoint, rank, words):
    with pytest.raises(EndpointError, match=words):
        rank_endpoint(endpoint, rank)
