import kvsync_events
from kvsync_events import EventsError

NAMES = """
AllBlocksCleared BlockHasher BlockRemoved BlockRun BlockStored CurveKeyError DEFAULT_LIMITS DecodeError END_SEQ
EncodeError EndpointError Event EventBatch EventsError ExtraKeys FrameError Hash HashBlock HashingError Limits
NEWEST_VERSION OLDEST_VERSION PubFrame REPLAY_END Removals RemovedRun ReplayItem ReplayReply SetDigest StoredRun
TextError UnsupportedVersionError WireForm batch_rank canonical decode_batch decode_seq digest_key encode_batch
encode_seq event_extra_keys event_hash hash_algorithms hash_extra_keys parse_pub_frames parse_replay_reply
parse_replay_request pub_frames publisher_binds rank_endpoint removals_of replay_end replay_reply replay_request
split_by_rank supported_versions
"""


def test_public_names_are_these():
    assert sorted(kvsync_events.__all__) == sorted(NAMES.split())
    assert all(hasattr(kvsync_events, name) for name in kvsync_events.__all__)


def test_one_exception_tree():
    errors = [getattr(kvsync_events, name) for name in kvsync_events.__all__ if name.endswith("Error")]
    assert all(issubclass(error, EventsError) for error in errors)
