"""The wire form of one vLLM version: encoding, fields, hashes and replay frames, as data.

A publisher picks the form its consumers can decode (vLLM's typed decoder loses the whole batch on the other encoding);
readers need none of this, the decoder takes every form. Source of the table: the released packages, 0.9.0 to 0.33.0.
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
"""Up to `lora_name`, a map event always has the field, even if null."""
_REMOVED_REQUIRED: Final = 2

_LOW_64: Final = (1 << 64) - 1

HashForm = Literal["low64", "bytes", "whole"]


@dataclass(frozen=True, slots=True)
class WireForm:
    """How one vLLM version writes its events.

    `stored_fields` and `removed_fields` are in wire order; the first `stored_required` / `removed_required` of them
    are written even when None in map events (array events write every field always).
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
        """Whether block hashes are integers on this wire."""
        return self.hash_form != "bytes"

    @staticmethod
    def for_version(version: str, *, int_hashes: bool = True, hash_algo: str | None = None) -> "WireForm":
        """The form of this vLLM version; UnsupportedVersionError outside 0.9.0 to 0.33.x.

        `int_hashes` is vLLM's VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES, without effect up to 0.10.1. `hash_algo` matters
        only there: `builtin` has signed hashes.
        """
        return _build_form(version, int_hashes, hash_algo)

    def wire_hash(self, digest: Hash) -> Hash:
        """A digest as this version puts it on the wire; integers are already there and pass.

        0.10.2 and newer: the low 64 bits, unsigned, or the digest itself. Up to 0.10.1 the whole digest is the
        integer (of 32 bytes: more than msgpack can carry, and the batch is lost there as well).
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
