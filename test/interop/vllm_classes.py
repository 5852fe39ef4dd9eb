"""Executes vLLM's own event classes and hash functions from their files, without the rest of the package.

`vllm/distributed/kv_events.py` is executed completely and unchanged; only its imports from vLLM are replaced (a logger,
a type alias, the configuration dataclass, four address helpers). Of the hashing files, only the named functions are
executed, unchanged and one by one, because the rest of these files imports torch.
"""

import ast
import importlib.util
import logging
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm_wheels import ensure_source

_HASHING = """sha256 sha256_cbor sha256_cbor_64bit xxhash xxhash_cbor _xxhash_digest get_hash_fn_by_name NONE_HASH
    init_none_hash resolve_none_hash_seed DEFAULT_NONE_HASH_SEED _NON_CRYPTO_HASH_FUNCTIONS _CBOR_HASH_FUNCTIONS
    hash_block_tokens _gen_mm_extra_hash_keys _gen_lora_extra_hash_keys _gen_prompt_embeds_extra_hash_keys
    generate_block_hash_extra_keys to_event_extra_keys need_extra_keys"""
HASHING_NAMES = frozenset(_HASHING.split())


@dataclass
class KVEventsConfig:
    """The fields of vLLM's class that its publisher reads."""

    enable_kv_cache_events: bool = False
    publisher: str = "null"
    endpoint: str = "tcp://*:5557"
    replay_endpoint: str | None = None
    buffer_steps: int = 10_000
    hwm: int = 100_000
    max_queue_size: int = 100_000
    topic: str = ""


_loaded: dict[str, types.ModuleType] = {}


def load_kv_events(version: str) -> types.ModuleType:
    """`vllm.distributed.kv_events` of this version: structs, publisher, factory."""
    if version not in _loaded:
        path = ensure_source(version) / "vllm/distributed/kv_events.py"
        name = f"vllm_kv_events_{version.replace('.', '_')}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # msgspec resolves annotations through it
        stubs = _stubs()
        before = {stub: sys.modules.get(stub) for stub in stubs}
        sys.modules.update(stubs)
        try:
            spec.loader.exec_module(module)
        finally:
            for stub, old in before.items():
                if old is None:
                    del sys.modules[stub]
                else:
                    sys.modules[stub] = old
        _loaded[version] = module
    return _loaded[version]


def _stubs() -> dict[str, types.ModuleType]:
    contents: dict[str, dict[str, Any]] = {
        "vllm": {},
        "vllm.config": {"KVEventsConfig": KVEventsConfig},
        "vllm.config.kv_events": {"KVEventsConfig": KVEventsConfig},
        "vllm.logger": {"init_logger": logging.getLogger},
        "vllm.utils": {},
        "vllm.utils.network_utils": {
            "get_ip": lambda: "127.0.0.1",
            "get_tcp_uri": lambda ip, port: f"tcp://{ip}:{port}",
            "is_valid_ipv6_address": lambda address: ":" in address,
            "split_zmq_path": _split_zmq_path,
        },
        "vllm.v1": {},
        "vllm.v1.core": {},
        "vllm.v1.core.kv_cache_utils": {"ExternalBlockHash": bytes | int},
    }
    stubs = {}
    for name, values in contents.items():
        stubs[name] = types.ModuleType(name)
        stubs[name].__path__ = []
        vars(stubs[name]).update(values)
    return stubs


def _split_zmq_path(path: str) -> tuple[str, str, str]:
    scheme, _, rest = path.partition("://")
    host, _, port = rest.rpartition(":")
    return scheme, host, port


def load_hashing(version: str, seed: str | None) -> dict[str, Any]:
    """vLLM's hash functions as a namespace, with NONE_HASH initialised for this PYTHONHASHSEED."""
    root = ensure_source(version)
    space: dict[str, Any] = {"__name__": f"vllm_hashing_{version}", "Any": Any, "BlockHash": _block_hash(version)}
    space["BlockHashType"] = space["BlockHash"]
    space["os"] = types.SimpleNamespace(getenv=lambda _name: seed, urandom=_fixed_bytes)
    space["logger"] = logging.getLogger(__name__)
    for name in ("cbor2", "hashlib", "pickle"):
        space[name] = importlib.import_module(name)
    space["_xxhash"] = importlib.import_module("xxhash")
    for file in ("vllm/utils.py", "vllm/utils/__init__.py", "vllm/utils/hashing.py", "vllm/v1/core/kv_cache_utils.py"):
        if (root / file).is_file():
            _run_named(root / file, space)
    return space


def _fixed_bytes(count: int) -> bytes:
    return bytes(range(count))


def _block_hash(version: str) -> Any:
    """From 0.10.2 on a plain digest, before that a tuple of hash, tokens and keys."""
    if tuple(map(int, version.split("."))) >= (0, 10, 2):
        return lambda digest: digest
    return lambda value, tokens, extra: value


def _run_named(path: Path, space: dict[str, Any]) -> None:
    """Execute the named definitions in file order, with annotations unevaluated."""
    tree = ast.parse(path.read_text())
    future = ast.parse("from __future__ import annotations").body
    chosen = [node for node in tree.body if _names(node) & HASHING_NAMES and not _only_declares(node)]
    module = ast.Module(body=[*future, *chosen], type_ignores=[])
    exec(compile(module, str(path), "exec"), space)


def _names(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef):
        return {node.name}
    if isinstance(node, ast.Assign):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return {node.target.id}
    return set()


def _only_declares(node: ast.stmt) -> bool:
    return isinstance(node, ast.AnnAssign) and node.value is None
