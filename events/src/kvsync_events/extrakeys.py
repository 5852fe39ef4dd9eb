"""The keys that enter a block's hash besides its tokens, by vLLM version.

The order of the keys is LoRA, multimodal inputs, cache salt, prompt embeddings. vLLM hashes bare values up to 0.30: the
integer id of the LoRA up to 0.11.0 and its name from 0.11.1 on, and the id of a multimodal input up to 0.18 and
`(id, offset)` from 0.19 on. From 0.31 on it hashes tagged tuples, which include the path of the LoRA. Events always
carry the keys without tags and without the path. Source: `generate_block_hash_extra_keys` and `to_event_extra_keys` of
the releases.
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
    """Return the extra keys of one block as they are hashed, or None if it has none.

    Args:
        lora_name: The name of the LoRA adapter.
        lora_path: Its path, which is hashed from 0.31 on.
        mm: The multimodal inputs in the block: id and offset relative to its first token. The offset may be negative.
        cache_salt: The salt, which belongs to the first block of a chain only; None for all other blocks.
        prompt_embeds: The digest of the block's prompt embeddings.
        vllm_version: The version whose rules apply.
        lora_id: The integer id of the LoRA, which is hashed up to 0.11.0.

    Raises:
        HashingError: a value that the version hashes is missing.
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
    """Return the `extra_keys` field of an event for blocks with these hashed keys, one entry per block.

    Tags and the path of the LoRA are removed; keys of versions before 0.31 have neither. The result is None if there
    are no blocks.
    """
    if not hashed:
        return None
    return [None if keys is None else tuple(_untag(key) for key in keys) for keys in hashed]


_TAGS = frozenset(("lora", "cache_salt", "prompt_embeds"))


def _untag(key: object) -> object:
    if isinstance(key, tuple):
        if len(key) == 3 and key[0] == "mm":
            return key[1:]
        # An untagged multimodal key is (id, offset), and only its second part is a number.
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
