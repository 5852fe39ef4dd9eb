import pytest

from kvsync_events import (
    NEWEST_VERSION,
    BlockRemoved,
    EncodeError,
    EventBatch,
    UnsupportedVersionError,
    WireForm,
    encode_batch,
    supported_versions,
)
from kvsync_events.versions import parse_version


def test_range():
    assert supported_versions()[0] == "0.9.0"
    assert supported_versions()[-1] == NEWEST_VERSION == "0.33.0"
    assert [parse_version(text) for text in supported_versions()] == sorted(map(parse_version, supported_versions()))


@pytest.mark.parametrize("text", ["0.24", "v0.24.0", "0.24.0.post1", "0.24.0rc1", " 0.24.0 "])
def test_spellings(text):
    assert parse_version(text) == (0, 24, 0)


@pytest.mark.parametrize("text", ["0.8.5", "0.34.0", "1.0.0", "", "latest", "0", "0.x", "0.24.0 or so"])
def test_versions_outside(text):
    with pytest.raises(UnsupportedVersionError):
        WireForm.for_version(text)


def test_message_names_the_range():
    with pytest.raises(UnsupportedVersionError, match=r"'0\.8\.5' is not supported; known are 0\.9\.0 to 0\.33\.0"):
        WireForm.for_version("0.8.5")


def test_patch_releases_of_the_newest_minor_are_taken():
    assert WireForm.for_version("0.33.7").map_events


@pytest.mark.parametrize(
    ("version", "maps", "rank", "stored", "removed", "topic"),
    [
        ("0.9.0", False, False, 5, 1, False),
        ("0.9.1", False, True, 5, 1, False),
        ("0.10.2", False, True, 6, 2, False),
        ("0.14.0", False, True, 7, 2, False),
        ("0.17.0", False, True, 8, 2, False),
        ("0.20.2", False, True, 9, 3, False),
        ("0.22.0", False, True, 11, 3, False),
        ("0.24.0", True, True, 11, 3, False),
        ("0.26.0", True, True, 12, 4, True),
        ("0.29.0", True, True, 13, 5, True),
        ("0.30.0", True, True, 14, 5, True),
        ("0.33.0", True, True, 15, 5, True),
    ],
)
def test_form_by_version(version, maps, rank, stored, removed, topic):
    form = WireForm.for_version(version)
    assert (form.map_events, form.batch_rank, form.replay_topic) == (maps, rank, topic)
    assert (len(form.stored_fields), len(form.removed_fields)) == (stored, removed)
    assert form.int_hashes


def test_hash_forms():
    assert WireForm.for_version("0.33.0", int_hashes=False).wire_hash(b"x" * 32) == b"x" * 32
    assert WireForm.for_version("0.33.0").wire_hash(b"\x00" * 31 + b"\x07") == 7
    assert WireForm.for_version("0.33.0").wire_hash(-4) == -4
    # Before 0.10.2 there is only one form.
    assert WireForm.for_version("0.10.1", int_hashes=False).int_hashes


@pytest.mark.parametrize("block_hash", [2**64, -(2**63) - 1, 1.5j])
def test_hashes_that_cannot_be_sent(block_hash):
    with pytest.raises(EncodeError, match=r"0\.33\.0"):
        encode_batch(EventBatch(0.0, [BlockRemoved([block_hash])]), WireForm.for_version("0.33.0"))
