"""Random histories: after every step, each core is compared with the plain model, and the cores with each other."""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from index_core_helpers import KINDS, Model, new_core, payload, removed, stored

from kvsync_events import AllBlocksCleared, EventBatch, SetDigest, digest_key
from kvsync_indexer.core import Context, chain, keys
from kvsync_indexer.core.publisher import Publisher
from kvsync_indexer.core.residency import Residency

PUBLISHERS = {"a": "m", "b": "m", "c": "other"}
names = st.sampled_from(sorted(PUBLISHERS))
# few hashes and few tokens, so that chains meet, repeat and contradict each other, and come in any order
small_hashes = st.integers(0, 9) | st.sampled_from([b"\x01" * 32, (3).to_bytes(32, "big"), -1, 2**64 - 1])
chains = st.lists(small_hashes, min_size=1, max_size=4)
blocks = st.lists(st.integers(0, 1), min_size=8, max_size=8)
groups = st.sampled_from([None, None, None, 0, 1])
mediums = st.sampled_from([None, None, "GPU", "cpu", "STORAGE"])
loras = st.sampled_from([{}, {}, {}, {"lora_name": "x"}, {"lora_id": 7}])
salts = st.sampled_from([None, None, "s"])
kinds = st.sampled_from(
    [
        {},
        {"kv_cache_spec_kind": "full_attention"},
        {"kv_cache_spec_kind": "sliding_window", "kv_cache_spec_sliding_window": 4},
        {"kv_cache_spec_kind": "mamba"},
    ]
)
MEDIUMS = ("CPU", "GPU", "STORAGE")


@st.composite
def stored_events(draw):
    chain = draw(chains)
    size = draw(st.sampled_from([2, 2, 2, 4]))
    parent = draw(st.none() | small_hashes)
    salt = draw(salts)
    extra = None
    if salt is not None and parent is None:
        extra = [(salt,)] + [None] * (len(chain) - 1)
    tokens = [draw(st.integers(0, 1)) for _ in range(size * len(chain))]
    shape = draw(st.sampled_from(["chain"] * 6 + ["no tokens", "sparse"]))
    fields = {**draw(loras), **draw(kinds), "medium": draw(mediums), "group_idx": draw(groups)}
    if shape == "no tokens":
        return stored(chain, [], None, 0, **fields)
    if shape == "sparse":
        return stored(chain[1:], tokens, parent, size, **fields)
    return stored(chain, tokens, parent, size, extra_keys=extra, **fields)


removed_events = st.builds(lambda h, m, g: removed(*h, medium=m, group_idx=g), chains, mediums, groups)
cleared_events = st.builds(AllBlocksCleared)
scoped_clears = st.builds(AllBlocksCleared, mediums)
batches = st.lists(
    stored_events() | stored_events() | stored_events() | removed_events | removed_events, min_size=1, max_size=4
)


class CoreMachine(RuleBasedStateMachine):
    """A core of each installed kind, fed the same; their snapshots must be equal bytes."""

    kind = "python"
    kinds = KINDS
    paths: dict = {}  # noqa: RUF012

    @initialize()
    def begin(self):
        self.cores = [new_core(kind, *(f"{name}={model}" for name, model in PUBLISHERS.items())) for kind in self.kinds]
        self.core = self.cores[self.kinds.index(self.kind)]
        self.paths = {}
        self.models = {name: Model(model) for name, model in PUBLISHERS.items()}

    @rule(name=names, events=batches)
    def batch(self, name, events):
        data = payload(*events)
        results = [core.apply(name, data) for core in self.cores]
        assert len(set(results)) == 1
        self.models[name].apply(events)
        self.paths.update({block.path: None for block in self.models[name].blocks.values() if block.path is not None})

    @rule(name=names, event=cleared_events | scoped_clears)
    def clear(self, name, event):
        results = [core.apply_batch(name, _batch(event)) for core in self.cores]
        assert len(set(results)) == 1
        self.models[name].apply([event])

    @rule(name=names)
    def restart(self, name):
        for core in self.cores:
            assert core.clear_publisher(name) == len(self.models[name].rows())
        self.models[name].forget()

    @rule(name=names)
    def depart(self, name):
        for core in self.cores:
            assert core.remove_publisher(name) == len(self.models[name].rows())
            core.add_publisher(name, PUBLISHERS[name])
        self.models[name].forget()

    @rule()
    def resume(self):
        for core in self.cores:
            data = core.snapshot()
            core.clear_publisher("a")
            assert core.restore(data) == sorted(PUBLISHERS)
            assert core.snapshot() == data
        for model in self.models.values():
            model.resume()

    @rule(tokens=blocks, model=st.sampled_from(["m", "other"]), lora=st.sampled_from([None, "x", "7"]), salt=salts)
    def query(self, tokens, model, lora, salt):
        self._query((model, lora, salt), tokens)

    @precondition(lambda self: self.paths)
    @rule(pick=st.integers(0, 99), twist=st.sampled_from(["", "", "salt", "lora", "model", "longer", "shorter"]))
    def query_what_was_stored(self, pick, twist):
        """The prompt of a block that is or was resident, in its own context or in one that differs in one part."""
        (model, lora, salt), _, *stored_blocks = list(self.paths)[pick % len(self.paths)]
        tokens = [token for block in stored_blocks for token in block]
        context = {
            "salt": (model, lora, None if salt else "s"),
            "lora": (model, None if lora else "x", salt),
            "model": ("other" if model == "m" else "m", lora, salt),
        }.get(twist, (model, lora, salt))
        self._query(context, {"longer": [*tokens, 0, 1, 0, 1], "shorter": tokens[:-1]}.get(twist, tokens))

    @rule(name=names, first=small_hashes, second=small_hashes, tokens=blocks)
    def report_of_one_block(self, name, first, second, tokens):
        """A chain of one block is stored, and then reported by a request that continues from it."""
        self.batch(name, [stored([first], tokens[:2], None, 2)])
        self.batch(name, [stored([first], tokens[:2], None, 2), stored([second], tokens[2:4], first, 2)])

    def _query(self, context, tokens):
        model = context[0]
        expected = {
            name: length
            for name, one in self.models.items()
            if one.model == model and (length := one.match(context, tokens))
        }
        answers = [list(core.match(Context(*context), tokens)) for core in self.cores]
        found = answers[self.kinds.index(self.kind)]
        assert {one.publisher: one.tokens for one in found} == expected
        assert [(-one.tokens, one.publisher) for one in found] == sorted((-one.tokens, one.publisher) for one in found)
        assert all(one.blocks * one.block_size == one.tokens for one in found)
        assert all(sum(one.tiers.values()) <= one.blocks for one in found)
        assert all(answer == found for answer in answers)

    @invariant()
    def recent_prompts(self):
        """The prompts of the latest chains, in their own contexts."""
        for context, _, *stored_blocks in list(self.paths)[-8:]:
            self._query(context, [token for block in stored_blocks for token in block])

    @precondition(lambda self: len(self.kinds) > 1)
    @invariant()
    def twins_agree(self):
        if hasattr(self, "cores"):
            first, second = (core.snapshot() for core in self.cores)
            assert first == second
            for name in PUBLISHERS:
                assert list(self.cores[0].dump(name)) == list(self.cores[1].dump(name))

    @invariant()
    def resident(self):
        if not hasattr(self, "models"):
            return
        for name, model in self.models.items():
            rows = list(self.core.dump(name))
            expected = model.rows()
            found = {(digest_key(row.hash), row.medium, row.group_idx): (row.copies, row.attached) for row in rows}
            assert found == expected
            assert len(rows) == len(expected) == self.core.stats(name).blocks
            assert self.core.stats(name).orphans == sum(block.path is None for block in model.blocks.values())
            digests = {(row.medium, row.group_idx): (row.count, row.digest_hex) for row in self.core.digest(name)}
            assert digests == {
                slot: (len(held), SetDigest(held).hex())
                for slot in {key[1:] for key in expected}
                if (held := [key[0] for key in expected if key[1:] == slot])
            }


def _batch(event):
    return EventBatch(0.0, [event])


def run(examples, **attributes):
    machine = type("Machine", (CoreMachine,), attributes)
    case = machine.TestCase
    case.settings = settings(
        max_examples=examples,
        stateful_step_count=20,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.explicit, Phase.generate],
        report_multiple_bugs=False,
    )
    case().runTest()


@pytest.mark.parametrize("kind", KINDS)
def test_core_equals_the_plain_model(kind):
    run(40, kind=kind)


def _ignore_clear(self, event, counts):
    return iter(())


def _drop_all_copies(self, hashed, block, slot):
    self._drop(hashed, block, slot)


def _attach_nothing(self, hashed, key):
    return None


def _forget_the_digest(self, hashed, block, slot, real=Publisher._drop):
    self.slots.digests[slot].add(hashed)
    real(self, hashed, block, slot)
    self.slots.digests[slot].count -= 1


def _hide_nothing(self, prefix_key, slot):
    return None


def _keep_reports(self, hashed, slot):
    return None


def _salt_is_ignored(model, lora, salt, size, seed, real=keys.root_key):
    return real(model, lora, None, size, seed)


FIRST = stored([1], [0, 0], None, 2)
SECOND = stored([2], [0, 1], 1, 2)
SALTED = stored([1], [0, 0], None, 2, extra_keys=[("s",)])

MUTANTS = {
    "a clear is ignored": (
        [(Publisher, "_clear", _ignore_clear)],
        [("batch", {"events": [FIRST]}), ("clear", {"event": AllBlocksCleared()})],
    ),
    "a removal takes every copy": (
        [(Publisher, "_release", _drop_all_copies)],
        [("batch", {"events": [FIRST]}), ("batch", {"events": [FIRST]}), ("batch", {"events": [removed(1)]})],
    ),
    "orphans are never attached": (
        [(Publisher, "_attach_waiting", _attach_nothing)],
        [("batch", {"events": [SECOND]}), ("batch", {"events": [FIRST]})],
    ),
    "the digest drifts": (
        [(Publisher, "_drop", _forget_the_digest)],
        [("batch", {"events": [FIRST, SECOND]}), ("batch", {"events": [removed(2)]})],
    ),
    "a removed block still matches": (
        [(Residency, "hide", _hide_nothing)],
        [("batch", {"events": [FIRST]}), ("batch", {"events": [removed(1)]})],
    ),
    "a report of one block adds a copy": (
        [(Publisher, "_take_back", _keep_reports)],
        [("report_of_one_block", {"first": 1, "second": 2, "tokens": [0] * 8})],
    ),
    "a context is ignored": (
        [(keys, "root_key", _salt_is_ignored), (chain, "root_key", _salt_is_ignored)],
        [("batch", {"events": [SALTED]}), ("query_what_was_stored", {"name": None, "pick": 0, "twist": "salt"})],
    ),
}
"""Planted bug: the attributes it replaces, and a history of rules in which the machine must notice it."""


def play(history, **attributes):
    """Call rules of the machine in order, with its invariants checked after each: a stored example of a search."""
    machine = type("Machine", (CoreMachine,), attributes)()
    machine.begin()
    for name, arguments in history:
        given = {"name": "a"} | arguments
        getattr(machine, name)(**{key: value for key, value in given.items() if value is not None})
        machine.recent_prompts()
        machine.resident()
        if len(machine.kinds) > 1:
            machine.twins_agree()


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_machine_catches_a_planted_bug(mutant, monkeypatch):
    replaced, history = MUTANTS[mutant]
    play(history)
    for owner, name, planted in replaced:
        monkeypatch.setattr(owner, name, planted)
    with pytest.raises((AssertionError, KeyError)):
        play(history, kinds=["python"])
