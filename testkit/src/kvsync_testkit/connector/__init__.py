"""A KV connector for tests: a leader that decides what is saved and loaded, and workers that move the bytes.

Configured by builder or by the JSON that vLLM takes as `--kv-transfer-config`. Keys that nothing reads, and keys that
contradict each other, are refused, because a misspelt key that is ignored makes a test pass for the wrong reason.
"""

from kvsync_testkit.connector.config import ConnectorTestConfig
from kvsync_testkit.connector.leading import ConnectorLeader, LoadPlan, SavePlan
from kvsync_testkit.connector.settings import ConnectorRole, ConnectorSettings
from kvsync_testkit.connector.working import ConnectorWorker

__all__ = [
    "ConnectorLeader",
    "ConnectorRole",
    "ConnectorSettings",
    "ConnectorTestConfig",
    "ConnectorWorker",
    "LoadPlan",
    "SavePlan",
]
