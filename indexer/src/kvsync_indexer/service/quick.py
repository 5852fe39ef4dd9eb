"""The usual match query, from the bytes of the body to those of the answer without a Python object per token or row.

A router asks with token ids and wants every publisher of the model. The native core takes the integers out of the JSON
and writes the rows of the answer; msgspec decodes the small rest of the body. Every other query (text, a list of
publishers, an error) gives None and is answered by `Matcher`, which defines the answer. A test compares the two.
"""

import time
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

import msgspec

from kvsync_indexer.api import MatchRequest
from kvsync_indexer.core import QueryError
from kvsync_indexer.errors import RequestError
from kvsync_indexer.ingest import Ingest, PublisherLink
from kvsync_indexer.service.contexts import context_of

if TYPE_CHECKING:
    from kvsync_native import AnswerTable

_MOST_ROWS = 1 << 31


class QuickMatch:
    """Answers from the native core; made with `QuickMatch.of`."""

    def __init__(self, ingest: Ingest, monotonic: Callable[[], float] = time.monotonic) -> None:
        native = import_module("kvsync_native")
        self._split = native.split_token_ids
        self._new_table = native.AnswerTable
        self._ingest = ingest
        self._monotonic = monotonic
        self._decoder = msgspec.json.Decoder(MatchRequest)
        self._trusted: Mapping[str, frozenset[str]] = {}
        self._tables: dict[str, tuple[tuple[PublisherLink, ...], tuple[AnswerTable, list[PublisherLink], bool]]] = {}

    @classmethod
    def of(cls, ingest: Ingest, monotonic: Callable[[], float]) -> "QuickMatch | None":
        """A quick match for an ingest with the native core, None for any other core."""
        return cls(ingest, monotonic) if ingest.core.name == "native" else None

    def answer(self, body: bytes) -> bytes | None:
        """The answer as JSON; None: ask `Matcher`."""
        parts = self._split(body)
        if parts is None:
            return None
        rest, tokens = parts
        try:
            request = self._decoder.decode(rest)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        trusted = self._ingest.trusted
        names = trusted.get(request.model)
        if (
            names is None
            or request.prompt is not None
            or request.messages is not None
            or request.publishers is not None
            or request.truncate_prompt_tokens is not None
            or request.prompt_logprobs is not None
            or request.echo is not None
        ):
            return None
        table, links, all_trusted = self._table(request.model, trusted, names)
        try:
            context = context_of(request)
        except RequestError:
            return None
        try:
            matches = self._ingest.core.match(context, tokens, None if all_trusted else names)
        except QueryError:
            return None
        limit = None if request.limit is None else max(0, min(request.limit, _MOST_ROWS))
        statuses = [_status(link) for link in links]
        return table.answer(matches, len(tokens) // 4, self._monotonic(), statuses, limit)  # type: ignore[arg-type]

    def _table(
        self, model: str, trusted: Mapping[str, frozenset[str]], names: frozenset[str]
    ) -> "tuple[AnswerTable, list[PublisherLink], bool]":
        """The model's table, its links by row, and whether all of them are trusted (the core then needs no list).

        The table is made again when publishers are added or removed, or their trust or epoch changes; `trusted` and the
        links are replaced, never changed, so their identity tells. A publisher that is not in the table is not in an
        answer, even if the core holds blocks of it.
        """
        if trusted is not self._trusted:
            self._tables.clear()
            self._trusted = trusted
        links = self._ingest.links_of(model)
        known = self._tables.get(model)
        if known is not None and known[0] is links:
            return known[1]
        ordered = sorted(links, key=lambda link: (link.spec.name not in names, link.spec.name))
        table: AnswerTable = self._new_table([_line(link) for link in ordered])
        made = table, ordered, all(link.spec.name in names for link in links)
        self._tables[model] = links, made
        return made


def _line(link: PublisherLink) -> tuple[str, bytes, bool]:
    spec = link.spec
    fixed = {"publisher": spec.name, "pod": spec.pod, "rank": spec.rank, "epoch": link.epoch, "matched_blocks": 0}
    return spec.name, msgspec.json.encode(fixed)[:-2], spec.ready


def _status(link: PublisherLink) -> tuple[str, float | None, bool, int | None]:
    standing = link.machine.standing
    return standing.state, standing.last_alive, standing.incomplete, link.totals.block_size
