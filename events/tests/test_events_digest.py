from hypothesis import given
from hypothesis import strategies as st

from kvsync_events import SetDigest, digest_key, event_hash

MASK = 2**64 - 1


def reference(hashes):
    """Compute the digest directly from its definition."""

    def mix(x):
        x ^= x >> 30
        x = x * 0xBF58476D1CE4E5B9 % 2**64
        x ^= x >> 27
        x = x * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    total = 0
    for key in hashes:
        total += mix((key + 0x9E3779B97F4A7C15) & MASK) << 64 | mix(key ^ 0xD1B54A32D192ED03)
    return total % 2**128


@given(st.sets(st.integers(0, MASK)), st.sets(st.integers(0, MASK)))
def test_follows_its_definition_and_forgets_what_left(stay, leave):
    digest = SetDigest(list(stay | leave))
    for key in leave - stay:
        digest.discard(key)
    assert (digest.value, digest.count) == (reference(stay), len(stay))
    assert digest == SetDigest(sorted(stay))
    assert len(digest.hex()) == 32


def test_known_values():
    assert SetDigest().hex() == "0" * 32
    assert SetDigest([0]).hex() == f"{reference([0]):032x}" == "e220a8397b1dcdaf" + SetDigest([0]).hex()[16:]
    assert repr(SetDigest([1])).startswith("SetDigest(count=1, value=")


def test_one_key_for_all_forms_of_a_hash():
    raw = b"\x01" * 24 + b"\xff" * 8
    assert digest_key(raw) == digest_key(event_hash(raw)) == digest_key(-1) == MASK
    assert SetDigest([raw]) == SetDigest([-1]) != SetDigest([1])


def test_clear():
    digest = SetDigest([1, 2])
    digest.clear()
    assert digest == SetDigest()
    assert digest != 0
