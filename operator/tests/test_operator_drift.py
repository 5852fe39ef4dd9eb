"""Drift: a field that the API server or another client adds is none; a desired field that is missing or differs is."""

import pytest

from kvsync_operator.reconcile.drift import find_drift, is_contained


@pytest.mark.parametrize(
    ("desired", "live"),
    [
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"limits": {"cpu": "1000m"}}, {"limits": {"cpu": "1"}}),
        ({"limits": {"memory": "1024Mi"}}, {"limits": {"memory": "1Gi"}}),
        ({"env": [{"name": "a", "value": "1"}]}, {"env": [{"name": "injected"}, {"name": "a", "value": "1"}]}),
        ({"labels": {}}, {}),
        ({"ingress": []}, {}),
        ({"args": ["a", "b"]}, {"args": ["a", "b"]}),
        ({"ports": [{"port": 1}]}, {"ports": [{"port": 1, "protocol": "TCP"}]}),
    ],
)
def test_contained(desired, live):
    assert is_contained(desired, live)


@pytest.mark.parametrize(
    ("desired", "live", "path"),
    [
        ({"a": {"b": 1}}, {"a": {"b": 2}}, "a.b"),
        ({"a": {"b": 1}}, {"a": None}, "a"),
        ({"a": {"b": 1}}, {}, "a"),
        ({"args": ["a", "b"]}, {"args": ["a"]}, "args"),
        ({"args": ["a", "b"]}, {"args": ["b", "a"]}, "args[0]"),
        ({"env": [{"name": "a", "value": "1"}]}, {"env": [{"name": "a", "value": "2"}]}, "env[a].value"),
        ({"env": [{"name": "a", "value": "1"}]}, {"env": [{"name": "b"}]}, "env[a]"),
        ({"ports": [{"port": 1}]}, {"ports": [{"port": 1}, {"port": 2}]}, "ports"),
        ({"limits": {"cpu": "1"}}, {"limits": {"cpu": "2"}}, "limits.cpu"),
        ({"on": True}, {"on": False}, "on"),
        ({"on": False}, {}, "on"),
    ],
)
def test_drift_is_named(desired, live, path):
    assert find_drift(desired, live) == path
