"""A live mock pod of each version followed by a live index, compared by the index's own audit; and a REQ client."""

import pytest
import zmq
from interop_live import Index, Pod, post
from interop_versions import VERSIONS
from test_interop_mockpod import drive

from kvsync_events import WireForm


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    with Index(tmp_path_factory.mktemp("whole")) as running:
        yield running


@pytest.mark.parametrize("version", VERSIONS)
def test_audit_of_a_pod_that_speaks_this_version_finds_no_difference(version, index, tmp_path):
    name = f"pod-{version}"
    with Pod(tmp_path, version, "--num-gpu-blocks-override", "40", "--max-model-len", "512") as pod:
        drive(pod, seed=1)
        index.follow(
            name=name, model="m", endpoint=pod.endpoint, replay_endpoint=pod.replay, debug_url=pod.url, http_url=pod.url
        )
        drive(pod, seed=2)
        index.wait_state(name, "live")
        report = post(f"{index.url}/v1/audit", {"publishers": [name], "wait_quiet_s": 10})
        (audit,) = report["publishers"]
        assert (audit["verdict"], audit["differences"]) == ("equal", 0), audit
        assert audit["engine_blocks"] > 10


def test_a_req_socket_receives_the_first_reply_as_from_vllm(tmp_path):
    version = VERSIONS[-1]
    with Pod(tmp_path, version) as pod, zmq.Context() as context, context.socket(zmq.REQ) as client:
        client.setsockopt(zmq.LINGER, 0)
        pod.complete([5] * 40, 1)
        client.connect(pod.replay)
        client.send((0).to_bytes(8, "big"))
        assert client.poll(5000)
        frames = client.recv_multipart()
        assert len(frames) == (3 if WireForm.for_version(version).replay_topic else 2)
        assert frames[-2] == bytes(8)
