"""The keys besides the tokens that go into a block's hash, and what events say of them, by vLLM version.

Order is LoRA, multimodal, cache salt, prompt embeds. Hashed: up to 0.30 bare values (the LoRA's integer id up to
0.11.0, its name from 0.11.1; a multimodal input's id up to 0.18, `(id, offset)` from 0.19); from 0.31 tagged tuples,
with the LoRA's path. Published: always untagged and without the path. Source: `generate_block_hash_extra_keys` and
`to_event_extra_keys` of the releases.
"""

from collections.abc import Sequence
from typing import Any

from kvsync_events.errors import HashingError
from kvsync_events.types import ExtraKeys
from kvsync_events.versions import NEWEST_VERSION, Version, parse_version


def hash_extra_keys(
    lora_name: str | None = None,
    lora_path: str | None = None,
    mm: Sequence[tuple[str, int]] = (),
    cache_salt: str | None = None,
    prompt_embeds: bytes | None = None,
    vllm_version: str = NEWEST_VERSION,
    *,
    lora_id: int | None = None,
) -> ExtraKeys | None:
    """The extra keys of one block as they are hashed, or None if it has none.

    `mm` are the multimodal inputs in the block: id and offset relative to the block's first token (may be negative).
    The salt belongs to a chain's first block only: the caller passes it there and None elsewhere. Up to 0.11.0 a LoRA
    needs `lora_id`. Raises HashingError if what the version hashes is missing.
    """
    version = parse_version(vllm_version)
    keys = [*_lora_keys(lora_name, lora_path, lora_id, version), *(_mm_key(item, version) for item in mm)]
    tagged = version >= (0, 31, 0)
    if cache_salt:
        keys.append(("cache_salt", cache_salt) if tagged else cache_salt)
    if prompt_embeds is not None and version >= (0, 12, 0):
        keys.append(("prompt_embeds", prompt_embeds) if tagged else prompt_embeds)
    return tuple(keys) or None


def event_extra_keys(hashed: Sequence[ExtraKeys | None]) -> list[ExtraKeys | None] | None:
    """The `extra_keys` of an event for blocks with these hashed keys: tags and the LoRA path taken off.

    One entry a block; None for no blocks. Keys of versions before 0.31 have no tags and stay.
    """
    if not hashed:
        return None
    return [None if keys is None else tuple(_untag(key) for key in keys) for keys in hashed]


_TAGS = frozenset(("lora", "cache_salt", "prompt_embeds"))


def _untag(key: object) -> object:
    if isinstance(key, tuple):
        if len(key) == 3 and key[0] == "mm":
            return key[1:]
        # An untagged multimodal key is (id, offset): its second part is a number, unlike that of any tag.
        if key[0] in _TAGS and not isinstance(key[1], int):
            return key[1]
    return key


def _lora_keys(name: str | None, path: str | None, number: int | None, version: Version) -> list[Any]:
    if version < (0, 11, 1):
        if name is not None and number is None:
            raise HashingError(f"vLLM {version} hashes a LoRA's integer id: lora_id is missing for {name!r}")
        return [] if number is None else [number]
    if name is None:
        return []
    if version < (0, 31, 0):
        return [name]
    if path is None:
        raise HashingError(f"vLLM {version} hashes a LoRA's path: lora_path is missing for {name!r}")
    return [("lora", name, path)]


def _mm_key(item: tuple[str, int], version: Version) -> object:
    identifier, offset = item
    if version < (0, 19, 0):
        return identifier
    return ("mm", identifier, offset) if version >= (0, 31, 0) else (identifier, offset)
