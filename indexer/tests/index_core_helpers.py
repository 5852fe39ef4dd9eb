"""Shared by the tests of the index core: the installed cores, short ways to make payloads, and a plain model."""

from dataclasses import dataclass, field
from math import lcm

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

FULL_KINDS = {None, "full_attention", "mla_attention", "sink_full_attention", "chunked_local_attention"}
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
        self.blocks: dict[tuple[int, int], ModelBlock] = {}
        """By hash and position of the block size in `order`."""
        self.kinds: dict = {}
        self.sizes: dict = {}
        self.order: list[int] = []
        self.resume()

    def resume(self):
        """What is not in a snapshot."""
        self.removed: dict[tuple[int, int], tuple] = {}
        """The paths of removed blocks."""

    def apply(self, batch_events):
        tentative = set()
        sparse = []
        for event in batch_events:
            if isinstance(event, BlockStored):
                self._store(event, tentative, sparse)
            elif isinstance(event, BlockRemoved):
                slot = ((event.medium or "GPU").upper(), event.group_idx)
                for one in event.block_hashes:
                    held = self._held(digest_key(one), slot)
                    tentative.discard((held, slot))
                    self._take(held, slot)
            else:
                self._clear(event)
                tentative.clear()
                if event.medium is None:
                    sparse.clear()
        for event in sparse:
            self._place(event)

    def _held(self, one, slot):
        """The key under which the slot holds a hash."""
        main = self._number(slot[1]) if slot[1] in self.sizes else 0
        numbers = sorted(range(max(1, len(self.order))), key=lambda number: (number != main, number))
        held = [(one, number) for number in numbers if slot in self._copies((one, number))]
        return held[0] if held else (one, main)

    def _copies(self, key):
        return self.blocks[key].copies if key in self.blocks else {}

    def _clear(self, event: AllBlocksCleared):
        remembered = dict(self.removed)
        for one in list(self.blocks):
            for slot in list(self.blocks[one].copies):
                if event.medium is None or slot[0] == event.medium.upper():
                    self.blocks[one].copies[slot] = 1
                    self._take(one, slot)
        self.removed = remembered

    def _take(self, one, slot):
        block = self.blocks.get(one)
        if block is None or slot not in block.copies:
            return
        block.copies[slot] -= 1
        if not block.copies[slot]:
            del block.copies[slot]
        if not block.copies:
            del self.blocks[one]
            if block.path is not None:
                self.removed[one] = block.path

    def _number(self, group):
        """The position of the block size that the blocks of a group have."""
        owners = [index for index, sizes in self.sizes.items() if sizes]
        if not self.sizes[group] and len(owners) == 1 and (group is None or owners[0] is None):
            group = owners[0]
        return self.order.index(max(self.sizes[group])) if self.sizes[group] else 0

    def _store(self, event, tentative, sparse):  # noqa: C901
        slot = ((event.medium or "GPU").upper(), event.group_idx)
        self.sizes.setdefault(event.group_idx, set())
        kind, window = self.kinds.get(event.group_idx, (None, None))
        kind = kind if event.kv_cache_spec_kind is None else event.kv_cache_spec_kind
        window = window if event.kv_cache_spec_sliding_window is None else event.kv_cache_spec_sliding_window
        self.kinds[event.group_idx] = (kind, window)
        count, size = len(event.block_hashes), event.block_size
        self._take_back(event, slot, tentative)
        with_tokens = bool(size > 0 and event.token_ids)
        if with_tokens:
            self.sizes[event.group_idx].add(size)
            if size not in self.order:
                self.order.append(size)
        main = self._number(event.group_idx)
        number = self.order.index(size) if with_tokens else main
        chained = with_tokens and count and len(event.token_ids) // size == count
        if with_tokens and 0 < count < len(event.token_ids) // size:
            sparse.append(event)
        above = None if event.parent_block_hash is None else (digest_key(event.parent_block_hash), number)
        path = self._path(event, above) if chained else None
        is_new = any(not self._holds_hash(digest_key(one), slot) for one in event.block_hashes)
        for at, raw_hash in enumerate(event.block_hashes):
            one = (digest_key(raw_hash), number)
            own = None
            if chained:
                tokens = tuple(event.token_ids[at * size : (at + 1) * size])
                own = None if path is None else (*path, tokens)
            if self._holds_hash(one[0], slot) and slot not in self._copies(one):
                held = self._held(one[0], slot)
                if chained and number != main:
                    path, above = own, one
                    continue
                if chained:
                    tentative.discard((held, slot))
                    self.blocks[held].copies[slot] = 1
                    self._take(held, slot)
                else:
                    one = held
            if not chained and one not in self.blocks and one in self.removed:
                self.blocks[one] = ModelBlock(self.removed[one], None)
                self._resolve()
            block = self.blocks.setdefault(one, ModelBlock(None, None))
            if chained:
                if block.path is None:
                    block.path = own
                    if block.waits is None:
                        block.waits = (above, tokens)
                    self._resolve()
                path = own if own is not None else block.path
                above = one
            if slot not in block.copies:
                block.copies[slot] = 1
            elif slot[0] != "GPU":
                block.copies[slot] += bool(with_tokens or is_new)
            elif with_tokens and (event.parent_block_hash is not None or (chained and count == 1)):
                block.copies[slot] += 1
                if event.parent_block_hash is None:
                    tentative.add((one, slot))

    def _holds_hash(self, one, slot):
        return any(slot in self._copies((one, number)) for number in range(max(1, len(self.order))))

    def _take_back(self, event, slot, tentative):
        if event.parent_block_hash is None:
            return
        for key, of in list(tentative):
            if key[0] == digest_key(event.parent_block_hash) and of == slot:
                tentative.discard((key, of))
                self._take(key, of)

    def _context(self, event, salt=None):
        lora = event.lora_name or (None if event.lora_id is None else str(event.lora_id))
        return (self.model, lora, salt)

    def _path(self, event, above):
        """The path of the block that the event's first block follows."""
        if above is None:
            salt = (event.extra_keys or [None])[0]
            return (self._context(event, salt[0] if salt else None), event.block_size)
        return self.blocks[above].path if above in self.blocks else None

    def _place(self, event):  # noqa: C901
        """Find the blocks of a sparse event by hashes that are known in another block size."""
        if len(self.order) < 2:
            return

        def prefix(number):
            """Context and tokens of everything up to the end of the event, as far as this block size knows it."""
            tokens = event.token_ids
            if event.parent_block_hash is None:
                return (self._context(event), [*tokens])
            above = self.blocks.get((digest_key(event.parent_block_hash), number))
            if above is None or above.path is None:
                return None
            return (above.path[0], [token for block in above.path[2:] for token in block] + [*tokens])

        size = event.block_size
        number = self.order.index(size)
        own = prefix(number)
        if own is None:
            return
        start = len(own[1]) - len(event.token_ids)
        places, following = {}, None
        for at in range(len(event.block_hashes) - 1, -1, -1):
            one = digest_key(event.block_hashes[at])
            place = None if following is None else following - 1
            for other in range(len(self.order)):
                known = self.blocks.get((one, other))
                whole = prefix(other)
                if other == number or known is None or known.path is None or whole is None:
                    continue
                tokens = [token for block in known.path[2:] for token in block]
                offset = len(tokens) - (len(whole[1]) - len(event.token_ids))
                if (
                    known.path[0] == whole[0]
                    and tokens == whole[1][: len(tokens)]
                    and offset > 0
                    and offset % size == 0
                ):
                    place = offset // size - 1
                    break
            if place is None:
                continue
            if place < at or (following is not None and place >= following):
                return
            places[at] = following = place
        for at, place in places.items():
            block = self.blocks.get((digest_key(event.block_hashes[at]), number))
            if block is not None and block.path is None:
                tokens = own[1][: start + (place + 1) * size]
                cut = [tuple(tokens[first : first + size]) for first in range(0, len(tokens), size)]
                block.path = (own[0], size, *cut)
                self._resolve()

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
            for (one, _), block in self.blocks.items()
            for slot, copies in block.copies.items()
        }

    def match(self, context: tuple, tokens: list[int]) -> int:
        """Tokens of the longest match."""
        asked = {group: max(sizes) for group, sizes in self.sizes.items() if sizes}
        if not asked:
            return 0
        step = lcm(*asked.values())
        for length in range(len(tokens) // step * step, 0, -step):
            if all(self._holds(group, context, tokens, size, length // size) for group, size in asked.items()):
                return length
        return 0

    def _holds(self, group, context, tokens, size, length):
        """Whether a group lets a match end after this many blocks."""
        kind, window = self.kinds.get(group, (None, None))
        first = 0
        if kind in WINDOW_KINDS and window is not None:
            first = max(0, length - max(1, -(-(window - 1) // size)))
        elif kind not in FULL_KINDS | WINDOW_KINDS:
            first = length - 1
        groups = {group}
        if sum(bool(sizes) for sizes in self.sizes.values()) == 1:
            groups |= {
                other
                for other in self.sizes
                if not self.sizes[other]
                and self.kinds.get(other, (None, None))[0] in FULL_KINDS
                and (other is None or group is None)
            }
        held = {
            block.path
            for block in self.blocks.values()
            if block.path is not None and any(slot[1] in groups for slot in block.copies)
        }
        path = (context, size, *(tuple(tokens[at : at + size]) for at in range(0, length * size, size)))
        return all(path[: 3 + at] in held for at in range(first, length))
