"""The configuration of a pod and its command line."""

from kvsync_mockpod.config.events import KVEventsConfig
from kvsync_mockpod.config.load import build_config, ignored_keys, read_yaml
from kvsync_mockpod.config.model import LoraModule, PodConfig

__all__ = ["KVEventsConfig", "LoraModule", "PodConfig", "build_config", "ignored_keys", "read_yaml"]
