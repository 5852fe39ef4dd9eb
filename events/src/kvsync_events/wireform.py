"""The wire form of a vLLM version as data: encoding, fields, hashes and replay frames.

A publisher chooses the form that its consumers can decode, because vLLM's typed decoder loses the whole batch if it is
in the other encoding. Readers need no form, since the decoder accepts all of them. The table was read from the released
packages 0.9.0 to 0.33.0.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from kvsync_events.types import Hash
from kvsync_events.versions import Version, parse_version

_STORED_SINCE: Final = (
    ("block_hashes", Version(0, 9, 0)),
    ("parent_block_hash", Version(0, 9, 0)),
    ("token_ids", Version(0, 9, 0)),
    ("block_size", Version(0, 9, 0)),
    ("lora_id", Version(0, 9, 0)),
    ("medium", Version(0, 10, 2)),
    ("lora_name", Version(0, 14, 0)),
    ("extra_keys", Version(0, 17, 0)),
    ("group_idx", Version(0, 20, 0)),
    ("kv_cache_spec_kind", Version(0, 21, 0)),
    ("kv_cache_spec_sliding_window", Version(0, 21, 0)),
    ("locality", Version(0, 26, 0)),
    ("ownership", Version(0, 29, 0)),
    ("session_id", Version(0, 30, 0)),
    ("lookahead_token_ids", Version(0, 33, 0)),
)
_REMOVED_SINCE: Final = (
    ("block_hashes", Version(0, 9, 0)),
    ("medium", Version(0, 10, 2)),
    ("group_idx", Version(0, 20, 0)),
    ("locality", Version(0, 26, 0)),
    ("ownership", Version(0, 29, 0)),
)
_STORED_REQUIRED: Final = 7
"""A map event always contains the fields up to `lora_name`, even if they are null."""
_REMOVED_REQUIRED: Final = 2

_LOW_64: Final = (1 << 64) - 1

HashForm = Literal["low64", "bytes", "whole"]


@dataclass(frozen=True, slots=True)
class WireForm:
    """How one vLLM version writes its events.

    `stored_fields` and `removed_fields` are in wire order. Map events contain the first `stored_required` or
    `removed_required` of them even if they are None. Array events always contain every field.
    """

    version: str
    map_events: bool
    batch_rank: bool
    stored_fields: tuple[str, ...]
    removed_fields: tuple[str, ...]
    stored_required: int
    removed_required: int
    replay_topic: bool
    hash_form: HashForm
    signed_hashes: bool = False

    @property
    def int_hashes(self) -> bool:
        """Whether block hashes are sent as integers."""
        return self.hash_form != "bytes"

    @staticmethod
    def for_version(version: str, *, int_hashes: bool = True, hash_algo: str | None = None) -> "WireForm":
        """Return the form of a vLLM version.

        Args:
            version: The version, such as `0.33.0`.
            int_hashes: The value of VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES. It has no effect up to 0.10.1.
            hash_algo: The hash algorithm. It matters only up to 0.10.1, where `builtin` has signed hashes.

        Raises:
            UnsupportedVersionError: the version is not in 0.9.0 to 0.33.x.
        """
        return _build_form(version, int_hashes, hash_algo)

    def wire_hash(self, digest: Hash) -> Hash:
        """Return a digest as this version sends it. An integer is returned unchanged.

        From 0.10.2 on, that is the low 64 bits, unsigned, or the digest itself. Up to 0.10.1 the integer is the whole
        digest. If that has 32 bytes, msgpack cannot encode it and vLLM loses the batch, as `encode_batch` does.
        """
        if isinstance(digest, int) or self.hash_form == "bytes":
            return digest
        number = int.from_bytes(digest, "big", signed=self.signed_hashes)
        return number if self.hash_form == "whole" else number & _LOW_64


@lru_cache(maxsize=256)
def _build_form(version: str, int_hashes: bool, hash_algo: str | None) -> WireForm:
    parsed = parse_version(version)
    old_hashes = parsed < (0, 10, 2)
    stored = tuple(name for name, since in _STORED_SINCE if parsed >= since)
    removed = tuple(name for name, since in _REMOVED_SINCE if parsed >= since)
    return WireForm(
        version=str(parsed),
        map_events=parsed >= (0, 24, 0),
        batch_rank=parsed >= (0, 9, 1),
        stored_fields=stored,
        removed_fields=removed,
        stored_required=min(_STORED_REQUIRED, len(stored)),
        removed_required=min(_REMOVED_REQUIRED, len(removed)),
        replay_topic=parsed >= (0, 26, 0),
        hash_form="whole" if old_hashes else "low64" if int_hashes else "bytes",
        signed_hashes=old_hashes and hash_algo == "builtin",
    )
