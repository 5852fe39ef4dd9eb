"""Every installed core is given the same bytes: valid payloads, almost valid ones, mutated ones and noise.

A core either applies a payload, or raises DecodeError or LimitError and changes nothing. All cores do the same, and
their snapshots are equal.
"""

import random

import msgpack
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from index_core_helpers import FORM, KINDS, OLD_FORM, new_core, payload, removed, stored

from kvsync_events import AllBlocksCleared, DecodeError, RemovedRun, StoredRun
from kvsync_events import Limits as WireLimits
from kvsync_indexer.core import Context, CoreLimits, LimitError

TIGHT = CoreLimits(
    max_blocks=200,
    max_orphans=6,
    wire=WireLimits(max_events=6, max_hashes=5, max_tokens=24, max_hash_bytes=33, max_text_bytes=80, max_key_parts=3),
)
RELAXED = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


class AllCores:
    """One core of each kind, which are all given the same."""

    def __init__(self, limits=None):
        self.all = [new_core(kind, limits=limits) for kind in KINDS]

    def apply(self, data):
        before = self.all[0].snapshot()
        outcomes = [self._one(core, data) for core in self.all]
        assert len(set(outcomes)) == 1, outcomes
        if outcomes[0] in (DecodeError, LimitError):
            assert self.all[0].snapshot() == before
        self.check()
        return outcomes[0]

    @staticmethod
    def _one(core, data):
        try:
            return core.apply("a", data)
        except (DecodeError, LimitError) as error:
            return type(error)

    def check(self):
        assert len({core.snapshot() for core in self.all}) == 1

    def match(self, context, tokens):
        answers = [list(core.match(context, tokens)) for core in self.all]
        assert all(answer == answers[0] for answer in answers)
        return answers[0]


# -- almost valid payloads: the right shape, with any value anywhere ---------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.integers(0, 20)
    | st.floats(width=64)
    | st.text(max_size=4)
    | st.binary(max_size=40)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=4))
    | st.builds(msgpack.Timestamp, st.integers(0, 2**33), st.integers(0, 999_999_999))
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3) | st.binary(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
hash_values = st.integers(0, 9) | st.integers(0, 2**64 - 1) | st.integers(-(2**63), -1) | st.binary(max_size=34)
mostly = lambda good: st.one_of(good, good, good, good, good, good, good, anything)  # noqa: E731
key_entries = st.none() | st.lists(
    st.sampled_from(["l", "s", b"d", 3, None, True, 1.5, {}, {"b": 1, "a": [{b"c": None}]}])
    | st.lists(st.sampled_from(["i", 0, -1, {"x": 1}]), max_size=3)
    | st.dictionaries(st.sampled_from(["a", "b", b"a"]), st.integers(0, 1) | anything, max_size=4),
    max_size=4,
)
FIELDS = {
    "block_hashes": mostly(st.lists(hash_values, max_size=6)),
    "parent_block_hash": mostly(st.none() | hash_values),
    "token_ids": mostly(
        st.lists(st.integers(0, 2), max_size=12) | st.lists(st.integers(0, 2**33) | st.text(max_size=1), max_size=8)
    ),
    "block_size": mostly(st.sampled_from([0, 1, 2, 2, 2, 4, 1024 * 1024, 1024 * 1024 + 1])),
    "lora_id": mostly(st.sampled_from([None, None, 0, 7, -1])),
    "medium": mostly(st.sampled_from([None, None, "GPU", "cpu", "Ünicode", "x" * 70])),
    "lora_name": mostly(st.sampled_from([None, None, "l", "", {"a": 1}])),
    "extra_keys": mostly(st.none() | st.lists(key_entries, max_size=5)),
    "group_idx": mostly(st.sampled_from([None, None, 0, 1, 65_535, 65_536])),
    "kv_cache_spec_kind": mostly(st.sampled_from([None, None, "full_attention", "sliding_window", "mamba"])),
    "kv_cache_spec_sliding_window": mostly(st.sampled_from([None, None, 0, 1, 5, 1 << 40, (1 << 40) + 1])),
    "locality": mostly(st.none()),
    "ownership": mostly(st.none()),
    "session_id": mostly(st.none()),
    "lookahead_token_ids": mostly(st.none() | st.lists(st.lists(st.integers(0, 3), max_size=2), max_size=2)),
    "cache_salt": mostly(st.sampled_from([None, None, "s", "l", ""])),
}
SHAPES = {
    "BlockStored": [name for name in FIELDS if name != "cache_salt"],
    "BlockRemoved": ["block_hashes", "medium", "group_idx", "locality", "ownership"],
    "AllBlocksCleared": ["medium"],
    "Other": ["block_hashes"],
}


@st.composite
def wire_events(draw):
    tag = draw(st.sampled_from(["BlockStored"] * 6 + ["BlockRemoved"] * 2 + ["AllBlocksCleared", "Other"]))
    names = SHAPES[tag]
    if draw(st.booleans()):
        length = draw(st.integers(0, len(names))) if draw(st.integers(0, 3)) == 0 else len(names)
        return [draw(mostly(st.just(tag))), *(draw(FIELDS[name]) for name in names[:length])]
    pairs = [("type", draw(mostly(st.just(tag))))]
    left_out = draw(st.sets(st.sampled_from([*FIELDS]), max_size=10)) - {"block_hashes", "token_ids", "block_size"}
    pairs += [(name, draw(FIELDS[name])) for name in FIELDS if name not in left_out]
    if draw(st.integers(0, 5)) == 0:
        pairs = draw(st.permutations(pairs))
    if draw(st.integers(0, 7)) == 0:  # a repeated name: the last one counts
        name = draw(st.sampled_from([*FIELDS]))
        pairs.append((name, draw(FIELDS[name])))
    if draw(st.integers(0, 9)) == 0:
        pairs.append((draw(st.text(max_size=3) | st.binary(max_size=3)), draw(anything)))
    return Pairs(pairs)


class Pairs(list):
    """A map that may contain a key twice."""


def pack(value) -> bytes:
    packer = msgpack.Packer(autoreset=False)

    def put(item):
        if isinstance(item, Pairs):
            packer.pack_map_header(len(item))
            for name, inner in item:
                packer.pack(name)
                put(inner)
        elif isinstance(item, list):
            packer.pack_array_header(len(item))
            for inner in item:
                put(inner)
        else:
            packer.pack(item)

    put(value)
    return packer.bytes()


@st.composite
def wire_batches(draw):
    events = draw(mostly(st.lists(wire_events(), max_size=7)))
    ts = draw(mostly(st.just(1.5)))
    shape = draw(st.integers(0, 11))
    if shape == 0:
        pairs = [("ts", ts), ("events", events), ("attn_dp_rank", draw(mostly(st.just(0))))]
        if draw(st.booleans()):
            pairs.append(("events", draw(st.lists(wire_events(), max_size=2))))
        if draw(st.booleans()):
            pairs.append(("data_parallel_rank", draw(mostly(st.none()))))
        return Pairs(draw(st.permutations(pairs)))
    if shape == 1:
        return [ts, events]
    return [ts, events, draw(mostly(st.none() | st.integers(0, 3))), *([draw(anything)] if shape == 2 else [])]


@RELAXED
@given(st.lists(wire_batches(), min_size=1, max_size=5), st.booleans())
def test_almost_valid_payloads(batches, tight):
    cores = AllCores(TIGHT if tight else None)
    for batch in batches:
        cores.apply(pack(batch))
    for lora in (None, "l", "7", ""):
        for salt in (None, "s"):
            cores.match(Context("m", lora, salt), [0, 0, 1, 1, 2, 2, 0, 0])
            cores.match(Context("m", lora, salt, (("s", ("i", 0)), None, (b"d",))), [0, 0, 1, 1, 2, 2, 0, 0])


# -- mutations -------------------------------------------------------------------------------------------------------


def _seeds():
    tokens = [*range(70_000, 70_008), 0, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1]
    events = [
        stored(
            [1, 2, 3, 2**64 - 1], tokens, extra_keys=[("s",), None, None, (("i", -3),)], lora_name="l", medium="GPU"
        ),
        stored(
            [4], tokens[:4], parent=3, group_idx=1, kv_cache_spec_kind="sliding_window", kv_cache_spec_sliding_window=9
        ),
        stored([1], [], size=0, medium="CPU"),
        removed(2, 9, medium="GPU"),
        AllBlocksCleared(),
    ]
    return [
        payload(*events),
        payload(*events[:-1]),
        payload(*events[:-1], form=OLD_FORM),
        msgpack.packb([1.0, [["BlockStored", [b"\1" * 32, b"\2" * 32], None, tokens[:8], 4, None]]]),
        msgpack.packb([1, [{"type": "BlockStored", "block_hashes": [-5], "token_ids": [[1, 2]], "block_size": 1}], 3]),
    ]


SEEDS = _seeds()


@RELAXED
@given(st.data())
def test_mutated_payloads(data):
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    cores = AllCores()
    for _ in range(6):
        body = bytearray(rng.choice(SEEDS))
        for _ in range(rng.randrange(4)):
            at = rng.randrange(len(body))
            match rng.randrange(5):
                case 0:
                    body[at] = rng.randrange(256)
                case 1:
                    body[at] ^= 1 << rng.randrange(8)
                case 2:
                    del body[at : at + rng.randrange(1, 5)]
                case 3:
                    body[at:at] = rng.randbytes(rng.randrange(1, 5))
                case _:
                    body[at] = rng.choice(
                        [0x90, 0x80, 0xC0, 0xC1, 0xC2, 0xCB, 0xCF, 0xD3, 0xDC, 0xDD, 0xDE, 0xD6, 0xC7]
                    )
            if not body:
                break
        cores.apply(bytes(body))


@RELAXED
@given(st.binary(max_size=60))
@example(b"\x92\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00\x90")
@example(b"\x92\xca\x3f\x80\x00\x00\x90")
@example(b"\x92\x01\x90\xc0")
def test_noise(data):
    AllCores().apply(data)


@pytest.mark.parametrize("depth", [5, 1020, 1021, 1022, 1023, 1024, 1030])
def test_nesting(depth):
    nested = b"\x91" * depth + b"\x90"
    AllCores().apply(b"\x94\x01\x90\xc0" + nested)


@pytest.mark.parametrize(
    "extension",
    [
        b"\xd6\xff\0\0\0\0",
        b"\xd7\xff" + b"\xff" * 8,
        b"\xd4\xff\0",
        b"\xc7\x0c\xff" + b"\0" * 12,
        b"\xc7\x0c\xff" + b"\xff" * 12,
    ],
)
def test_timestamps(extension):
    AllCores().apply(b"\x94\x01\x90\xc0" + extension)


@pytest.mark.parametrize(
    "extension", [b"\xd4\x80\0", b"\xd6\xfe\0\0\0\0", b"\xc7\x02\xf0\0\0", b"\xd8\xfe" + bytes(16)]
)
def test_extensions_of_reserved_types(extension):
    assert AllCores().apply(b"\x94\x01\x90\xc0" + extension) is DecodeError


@pytest.mark.parametrize("depth", range(5, 12))
def test_nesting_of_maps_in_extra_keys(depth):
    part = 1
    for level in range(depth):
        part = [part] if level % 2 else {"a": part}
    cores = AllCores()
    for entry in ([{"m": part}], {"m": part}, [["i", {"m": part}]]):
        cores.apply(
            msgpack.packb(
                [
                    1.0,
                    [
                        {
                            "type": "BlockStored",
                            "block_hashes": [1],
                            "token_ids": [1, 2],
                            "block_size": 2,
                            "extra_keys": [entry],
                        }
                    ],
                ]
            )
        )


def test_a_map_in_an_extra_key_that_repeats_a_name():
    """The last value counts, as in Python's dictionaries."""
    twice = b"\x82\xa1a\x01\xa1a\x02"
    once = b"\x81\xa1a\x02"
    event = msgpack.packb(["BlockStored", [1], None, [1, 2], 2, None, None, None, [[0]]])
    assert event.endswith(b"\x91\x91\x00")
    cores = [AllCores(), AllCores()]
    for one, encoded in zip(cores, (twice, once), strict=True):
        one.apply(b"\x92\x01\x91" + event[:-1] + encoded)
    assert cores[0].all[0].snapshot() == cores[1].all[0].snapshot()


def test_buffers_are_payloads_too():
    data = SEEDS[1]
    for form in (bytearray(data), memoryview(data), memoryview(bytearray(data))):
        assert AllCores().apply(form) == AllCores().apply(data)


# -- long streams of plausible traffic -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_long_streams(seed):
    """Thousands of blocks are stored, evicted and offloaded as by an engine, while the tables grow and shrink."""
    rng = random.Random(seed)
    cores = AllCores()
    for core in cores.all:
        core.add_publisher("b", "m")
    held: list[tuple[int, list[int]]] = []
    next_hash = 1
    for _ in range(60):
        events = []
        for _ in range(rng.randrange(1, 30)):
            roll = rng.random()
            if roll < 0.55 or not held:
                parent, prefix = rng.choice(held) if held and rng.random() < 0.7 else (None, [])
                count = rng.randrange(1, 12)
                tokens = [rng.randrange(2) for _ in range(4 * count)]
                hashes = list(range(next_hash, next_hash + count))
                next_hash += count
                events.append(stored([one * 0x9E3779B97F4A7C15 % 2**64 for one in hashes], tokens, parent))
                held += [
                    (one * 0x9E3779B97F4A7C15 % 2**64, [*prefix, *tokens[: 4 * (at + 1)]])
                    for at, one in enumerate(hashes)
                ]
            elif roll < 0.9:
                events.append(removed(held.pop(rng.randrange(len(held)))[0]))
            else:
                events.append(stored([rng.choice(held)[0]], [], size=0, medium="CPU"))
        if rng.random() < 0.03:
            events.append(AllBlocksCleared())
            held.clear()
        data = payload(*events, form=rng.choice([FORM, OLD_FORM]))
        for name in ("a", "b") if rng.random() < 0.5 else ("a",):
            assert len({core.apply(name, data) for core in cores.all}) == 1
        for _, prefix in rng.sample(held, min(5, len(held))):
            cores.match(Context("m"), prefix)
    cores.check()
    assert len({str(list(core.dump("b"))) for core in cores.all}) == 1


# -- runs: what an engine in the same process reports ------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_runs(seed):
    """Random runs of chains that share prefixes, with copies, two media and removals of what is not there."""
    rng, cores = random.Random(seed), AllCores(CoreLimits(max_blocks=300))
    chains = [[1000 * chain + at for at in range(12)] for chain in range(4)]
    chains += [chains[0][:5] + [9000 + at for at in range(7)]]
    for _ in range(400):
        runs = []
        for _ in range(rng.randint(1, 4)):
            chain, medium = rng.choice(chains), rng.choice(["GPU", "GPU", "CPU"])
            first = rng.randrange(len(chain))
            hashes = chain[first : first + rng.randint(1, 6)]
            parent = chain[first - 1] if first else None
            runs.append(StoredRun(hashes, medium, parent) if rng.random() < 0.5 else RemovedRun(hashes[::-1], medium))
        outcomes = [_apply_runs(core, runs) for core in cores.all]
        assert all(outcome == outcomes[0] for outcome in outcomes)
        cores.check()
        chain = rng.choice(chains)
        answers = [list(core.match_hashes("m", 16, chain)) for core in cores.all]
        assert all(answer == answers[0] for answer in answers)
        held = {row.hash for row in cores.all[0].dump("a")}
        prefix = next((at for at, one in enumerate(chain) if one not in held), len(chain))
        assert [match.blocks for match in answers[0]] == ([prefix] if prefix else [])
    assert all(list(core.dump("a")) == list(cores.all[0].dump("a")) for core in cores.all)


def test_runs_over_the_limit_of_blocks_change_nothing():
    cores = AllCores(CoreLimits(max_blocks=5))
    assert {_apply_runs(core, [StoredRun(range(6), "GPU", None)]) for core in cores.all} == {LimitError}
    assert all(core.sizes("a") == (0, 0) for core in cores.all)


def _apply_runs(core, runs):
    try:
        return core.apply_runs("a", 16, runs)
    except LimitError as error:
        return type(error)
