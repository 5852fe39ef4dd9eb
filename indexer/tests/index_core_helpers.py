"""Shared by the tests of the index core: the installed cores, short ways to make payloads, and a plain model."""

from dataclasses import dataclass, field

from kvsync_events import (
    NEWEST_VERSION,
    AllBlocksCleared,
    BlockRemoved,
    BlockStored,
    EventBatch,
    WireForm,
    digest_key,
    encode_batch,
)
from kvsync_indexer.core import Context, CoreLimits, IndexCore, make_core, native_available

KINDS = ["python", "native"] if native_available()[0] else ["python"]
FORM = WireForm.for_version(NEWEST_VERSION)
OLD_FORM = WireForm.for_version("0.23.0")
PROMPT = list(range(100, 116))
"""Four blocks of four."""
FULL = {"group_idx": 0, "kv_cache_spec_kind": "full_attention"}
WINDOW = {"group_idx": 1, "kv_cache_spec_kind": "sliding_window", "kv_cache_spec_sliding_window": 5}


def new_core(kind, *publishers, limits=None, seed=0) -> IndexCore:
    """A core with publishers: `name` serves model `m`, and `name=x` serves model `x`."""
    core = make_core(kind, limits or CoreLimits(), seed)
    for publisher in publishers or ("a",):
        name, _, model = publisher.partition("=")
        core.add_publisher(name, model or "m")
    return core


def stored(hashes, tokens, parent=None, size=4, **fields):
    return BlockStored(list(hashes), parent, list(tokens), size, **fields)


def batch(*events):
    return EventBatch(0.0, list(events))


def removed(*hashes, **fields):
    return BlockRemoved(list(hashes), **fields)


def payload(*events, form=FORM):
    return encode_batch(EventBatch(1.0, list(events), 0), form)


def put(core, *events, publisher="a", **kw):
    return core.apply(publisher, payload(*events, **kw))


def matched(core, tokens, model="m", publishers=None, **context):
    """Matched blocks by publisher."""
    return {one.publisher: one.blocks for one in core.match(Context(model, **context), list(tokens), publishers)}


def hashes(core, publisher="a"):
    return {row.hash for row in core.dump(publisher)}


# -- a model that is as simple as possible ---------------------------------------------------------------------------

FULL_KINDS = {None, "full_attention", "mla_attention", "sink_full_attention"}
WINDOW_KINDS = {"sliding_window", "sliding_window_mla"}


@dataclass
class ModelBlock:
    path: tuple | None
    """(context, block size, block, block, ...) from the root to the block."""
    waits: tuple | None
    """(parent's hash, tokens of the block)."""
    copies: dict = field(default_factory=dict)


class Model:
    """One publisher as dictionaries. The content of a block is its whole path of tokens, not a hash of it."""

    def __init__(self, model):
        self.model = model
        self.forget()

    def forget(self):
        self.blocks: dict[int, ModelBlock] = {}
        self.kinds: dict = {}
        self.sizes: dict = {}

    def apply(self, batch_events):
        tentative = set()
        for event in batch_events:
            if isinstance(event, BlockStored):
                self._store(event, tentative)
            elif isinstance(event, BlockRemoved):
                for one in event.block_hashes:
                    slot = ((event.medium or "GPU").upper(), event.group_idx)
                    tentative.discard((digest_key(one), slot))
                    self._take(digest_key(one), slot)
            else:
                self._clear(event)

    def _clear(self, event: AllBlocksCleared):
        for one in list(self.blocks):
            for slot in list(self.blocks[one].copies):
                if event.medium is None or slot[0] == event.medium.upper():
                    self.blocks[one].copies[slot] = 1
                    self._take(one, slot)

    def _take(self, one, slot):
        block = self.blocks.get(one)
        if block is None or slot not in block.copies:
            return
        block.copies[slot] -= 1
        if not block.copies[slot]:
            del block.copies[slot]
        if not block.copies:
            del self.blocks[one]

    def _store(self, event, tentative):
        slot = ((event.medium or "GPU").upper(), event.group_idx)
        self.sizes.setdefault(event.group_idx, set())
        if event.kv_cache_spec_kind is not None:
            self.kinds[event.group_idx] = (event.kv_cache_spec_kind, event.kv_cache_spec_sliding_window)
        count, size = len(event.block_hashes), event.block_size
        self._take_back(event, slot, tentative)
        with_tokens = size > 0 and event.token_ids
        if with_tokens:
            self.sizes[event.group_idx].add(size)
        chained = with_tokens and count and len(event.token_ids) // size == count
        above = None if event.parent_block_hash is None else digest_key(event.parent_block_hash)
        path = self._path(event, above) if chained else None
        for at, raw_hash in enumerate(event.block_hashes):
            one = digest_key(raw_hash)
            block = self.blocks.setdefault(one, ModelBlock(None, None))
            if chained:
                tokens = tuple(event.token_ids[at * size : (at + 1) * size])
                own = None if path is None else (*path, tokens)
                if block.path is None:
                    block.path = own
                    if block.waits is None:
                        block.waits = (above, tokens)
                    self._resolve()
                path = own if own is not None else block.path
                above = one
            again = slot in block.copies
            if not again:
                block.copies[slot] = 1
            elif with_tokens and (event.parent_block_hash is not None or (chained and count == 1)):
                block.copies[slot] += 1
                if event.parent_block_hash is None:
                    tentative.add((one, slot))

    def _take_back(self, event, slot, tentative):
        above = event.parent_block_hash
        if above is not None and (digest_key(above), slot) in tentative:
            tentative.discard((digest_key(above), slot))
            self._take(digest_key(above), slot)

    def _path(self, event, above):
        """The path of the block that the event's first block follows."""
        if above is None:
            salt = (event.extra_keys or [None])[0]
            lora = event.lora_name or (None if event.lora_id is None else str(event.lora_id))
            return ((self.model, lora, salt[0] if salt else None), event.block_size)
        return self.blocks[above].path if above in self.blocks else None

    def _resolve(self):
        changed = True
        while changed:
            changed = False
            for block in self.blocks.values():
                if block.path is None and block.waits is not None:
                    above = self.blocks.get(block.waits[0])
                    if above is not None and above.path is not None and block.waits[0] is not None:
                        block.path = (*above.path, block.waits[1])
                        changed = True

    # reading

    def rows(self):
        return {
            (one, *slot): (copies, block.path is not None)
            for one, block in self.blocks.items()
            for slot, copies in block.copies.items()
        }

    def match(self, context: tuple, tokens: list[int]) -> int:
        """Tokens of the longest match."""
        best = 0
        for size in set().union(*self.sizes.values()) if self.sizes else ():
            for length in range(len(tokens) // size, 0, -1):
                if self._holds(context, tokens, size, length):
                    best = max(best, length * size)
                    break
        return best

    def _holds(self, context, tokens, size, length):
        with_tokens = [group for group, sizes in self.sizes.items() if sizes]
        asked = False
        for group in with_tokens:
            kind, window = self.kinds.get(group, (None, None))
            if size not in self.sizes[group] or kind not in FULL_KINDS | WINDOW_KINDS:
                continue
            asked = True
            first = 0
            if kind in WINDOW_KINDS and window is not None:
                first = max(0, length - max(1, -(-(window - 1) // size)))
            groups = {group}
            if len(with_tokens) == 1:
                groups |= {
                    other
                    for other in self.sizes
                    if other not in with_tokens
                    and self.kinds.get(other, (None, None))[0] in FULL_KINDS
                    and (other is None or group is None)
                }
            held = {
                block.path
                for block in self.blocks.values()
                if block.path is not None and any(slot[1] in groups for slot in block.copies)
            }
            path = (context, size, *(tuple(tokens[at : at + size]) for at in range(0, length * size, size)))
            if not all(path[: 3 + at] in held for at in range(first, length)):
                return False
        return asked
