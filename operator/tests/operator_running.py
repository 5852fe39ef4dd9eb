"""Custom resources, and the whole operator against the kit's API server."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator

import aiohttp
import kubernetes

from kvsync_operator.client import KubeClient
from kvsync_operator.running import Operator
from kvsync_operator.settings import build_settings
from kvsync_testkit.cluster import FakeKube
from kvsync_testkit.waiting import until

until = functools.partial(until, deadline_s=30.0, every_s=0.02)


def engine(name="llama", namespace="lab", **spec):
    body = {"model": {"name": "m"}, **spec}
    return {
        "apiVersion": "kvsync.dev/v1alpha1",
        "kind": "MockEngine",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"replicas": 1, **body},
    }


def index(name="main", namespace="lab", **spec):
    return {
        "apiVersion": "kvsync.dev/v1alpha1",
        "kind": "PrefixIndex",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"replicas": 1, **spec},
    }


def condition(obj, kind):
    conditions = (obj or {}).get("status", {}).get("conditions", [])
    return next((item for item in conditions if item["type"] == kind), None)


def is_ready(api, plural="mockengines", name="llama", namespace="lab"):
    found = condition(api.get(plural, namespace, name), "Ready")
    return found is not None and found["status"] == "True"


@contextlib.asynccontextmanager
async def running(api: FakeKube, folder, monkeypatch, **settings) -> AsyncIterator[Operator]:
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(folder)))
    values = {"namespaces": ("lab", "far"), "http_host": "127.0.0.1", "http_port": 0, **settings}
    own = build_settings(**values)
    configuration = kubernetes.client.Configuration()
    configuration.host = api.url
    configuration.retries = False
    client = KubeClient(kubernetes.client.ApiClient(configuration), own.write_slots, own.request_timeout_s)
    stop = asyncio.Event()
    async with aiohttp.ClientSession() as session:
        operator = Operator(own, client, session)
        task = asyncio.create_task(operator.run(stop))
        try:
            await until("watching", lambda: operator.health.ready or task.done())
            yield operator
        finally:
            stop.set()
            await task
            client.close()
