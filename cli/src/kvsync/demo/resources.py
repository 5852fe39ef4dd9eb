"""Builds the resources of a demo from `demo.yaml`, the flags and the trace."""

from importlib.resources import files
from typing import Any

import yaml

from kvsync.demo.settings import DemoSettings, Workload
from kvsync.local.manifests import parse
from kvsync_operator.models.document import Resource

SAMPLE = "demo.yaml"


def build_resources(settings: DemoSettings, workload: Workload) -> list[Resource[Any]]:
    """Return a MockEngine and a PrefixIndex, validated."""
    text = files("kvsync.demo").joinpath(SAMPLE).read_text(encoding="utf-8")
    engine, index = yaml.safe_load_all(text)
    spec = engine["spec"]
    spec["replicas"] = settings.engines
    spec["seed"] = settings.seed
    spec["cache"]["numGpuBlocks"] = workload.blocks
    spec["scheduler"]["maxModelLen"] = workload.max_model_len
    spec["latency"] = {"custom": workload.latency, "timeScale": f"{workload.time_scale:.6f}"}
    if settings.host_blocks:
        spec["cache"]["hostOffload"] = {"blocks": settings.host_blocks}
    index["spec"]["core"] = settings.core
    return [parse(engine, SAMPLE), parse(index, SAMPLE)]
