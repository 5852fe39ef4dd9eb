"""Token ids generated from small numbers; `test/fidelity` and its vLLM driver rely on the same values."""

_MASK = 0xFFFFFFFFFFFFFFFF
_FIRST_ORDINARY = 1000
"""The smallest generated token id; smaller ids are special."""


def _mix(stream: int, index: int) -> int:
    h = 0x9E3779B97F4A7C15
    for x in (stream, index):
        h ^= x & _MASK
        h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        h = (h ^ (h >> 27)) * 0x94D049BB133111EB & _MASK
        h ^= h >> 31
    return h


def token(stream: int, index: int, vocab_size: int) -> int:
    """Token `index` of a stream; never a special one."""
    return _FIRST_ORDINARY + _mix(stream, index) % (vocab_size - _FIRST_ORDINARY)
