"""The files of `examples/gateway`, as they are."""

import subprocess

import pytest
import yaml
from gateway_plant import CONFIGURATIONS, EXAMPLES, envoy_path

from kvsync_indexer.publishers_file import PublishersFile


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_envoy_accepts_its_configuration(name):
    command = [envoy_path(), "--mode", "validate", "-c", EXAMPLES / name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_configuration_is_tested():
    envoys = {path.name for path in EXAMPLES.glob("envoy*.yaml")}
    assert envoys == set(CONFIGURATIONS)


def test_the_publishers_file_lists_the_engines_of_the_configurations():
    urls = [spec.http_url for spec in PublishersFile(EXAMPLES / "publishers.yaml").read()]
    assert urls == ["http://127.0.0.1:8001", "http://127.0.0.1:8002"]


def test_every_manifest_is_complete():
    for path in (EXAMPLES / "kubernetes").glob("*.yaml"):
        for document in yaml.safe_load_all(path.read_text()):
            assert {"apiVersion", "kind", "metadata"} <= document.keys(), path
