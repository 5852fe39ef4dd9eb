"""The KV event wire of vLLM and of engines that speak it too.

Mock engines, indexes and tests read and write the same bytes through this package. It imports no other member of the
workspace, opens no socket and reads no clock.

- `types`: the events as Python values
- `decoding`, `encoding`, `limits`: payloads
- `wireform`, `versions`: what each vLLM version sends
- `frames`, `endpoints`: the ZMQ messages around a payload, and where they are sent
- `hashing`, `extrakeys`, `cbor`: vLLM's block hashes
- `runs`: the same transitions inside one process, without payloads
- `digest`: how two sides compare which blocks are resident
- `curve`: keys of encrypted sockets
- `mocktext`: the tokenizer and the chat template of the mock model
"""

from kvsync_events.canonical import canonical
from kvsync_events.decoding import decode_batch
from kvsync_events.digest import SetDigest, digest_key
from kvsync_events.encoding import encode_batch
from kvsync_events.endpoints import publisher_binds, rank_endpoint
from kvsync_events.errors import (
    CurveKeyError,
    DecodeError,
    EncodeError,
    EndpointError,
    EventsError,
    FrameError,
    HashingError,
    TextError,
    UnsupportedVersionError,
)
from kvsync_events.extrakeys import event_extra_keys, hash_extra_keys
from kvsync_events.frames import (
    END_SEQ,
    REPLAY_END,
    PubFrame,
    ReplayItem,
    ReplayReply,
    decode_seq,
    encode_seq,
    parse_pub_frames,
    parse_replay_reply,
    parse_replay_request,
    pub_frames,
    replay_end,
    replay_reply,
    replay_request,
)
from kvsync_events.hashing import BlockHasher, HashBlock, event_hash, hash_algorithms
from kvsync_events.limits import DEFAULT_LIMITS, Limits
from kvsync_events.ranks import batch_rank, split_by_rank
from kvsync_events.runs import BlockRun, RemovedRun, StoredRun
from kvsync_events.types import AllBlocksCleared, BlockRemoved, BlockStored, Event, EventBatch, ExtraKeys, Hash
from kvsync_events.versions import NEWEST_VERSION, OLDEST_VERSION, Removals, removals_of, supported_versions
from kvsync_events.wireform import WireForm

__all__ = [
    "DEFAULT_LIMITS",
    "END_SEQ",
    "NEWEST_VERSION",
    "OLDEST_VERSION",
    "REPLAY_END",
    "AllBlocksCleared",
    "BlockHasher",
    "BlockRemoved",
    "BlockRun",
    "BlockStored",
    "CurveKeyError",
    "DecodeError",
    "EncodeError",
    "EndpointError",
    "Event",
    "EventBatch",
    "EventsError",
    "ExtraKeys",
    "FrameError",
    "Hash",
    "HashBlock",
    "HashingError",
    "Limits",
    "PubFrame",
    "Removals",
    "RemovedRun",
    "ReplayItem",
    "ReplayReply",
    "SetDigest",
    "StoredRun",
    "TextError",
    "UnsupportedVersionError",
    "WireForm",
    "batch_rank",
    "canonical",
    "decode_batch",
    "decode_seq",
    "digest_key",
    "encode_batch",
    "encode_seq",
    "event_extra_keys",
    "event_hash",
    "hash_algorithms",
    "hash_extra_keys",
    "parse_pub_frames",
    "parse_replay_reply",
    "parse_replay_request",
    "pub_frames",
    "publisher_binds",
    "rank_endpoint",
    "removals_of",
    "replay_end",
    "replay_reply",
    "replay_request",
    "split_by_rank",
    "supported_versions",
]
