"""Why the policy `kv` is no better than round robin, read from the metrics of a router and the publishers of its index.

`diagnose` is pure. The figures that it reads are explained in docs/router.md.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp

from kvsync.checks.finding import Finding
from kvsync.prometheus_text import counter_total
from kvsync_indexer.api import PublisherRow
from kvsync_indexer.client import AsyncIndexClient, IndexClientError
from kvsync_indexer.client.describing import describe

ENOUGH_REQUESTS: Final = 20
"""Fewer requests say little."""
SHORT_TOKENS: Final = 64
"""Prompts of fewer tokens on average have little to cache: four blocks of vLLM's default size."""
MUCH: Final = 0.1
"""A share of this size is worth a finding."""
MOST: Final = 0.5
_GUIDE: Final = "see docs/router.md#why-kv-is-no-better"
ANSWER_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterFigures:
    """Totals since a router started. Tokens are prompt tokens."""

    requests: int = 0
    by_policy: dict[str, int]
    """Requests by the policy that decided them."""
    refused: int = 0
    fallbacks: int = 0
    endpoints: int = 0
    endpoints_up: int = 0
    busy_endpoints: int = 0
    """Endpoints with requests whose answer has not begun."""
    prompt: int = 0
    available: int = 0
    chosen: int = 0
    reported: int = 0
    load: int = 0
    staleness: int = 0
    prediction: int = 0
    unresolved: int = 0


def read_figures(text: str) -> RouterFigures:
    """The figures in the text of a router's `/metrics`."""
    served = _by_label(text, "kvsync_router_requests_total", "policy")
    outcomes = _by_label(text, "kvsync_router_requests_total", "outcome")
    causes = _by_label(text, "kvsync_router_regret_tokens_total", "cause")
    up = _by_label(text, "kvsync_router_endpoint_up", "endpoint")
    queued = _by_label(text, "kvsync_router_endpoint_queued_requests", "endpoint")
    total = {
        name: counter_total(text, f"kvsync_router_{name}_total")
        for name in (
            "fallbacks",
            "prompt_tokens",
            "available_tokens",
            "chosen_tokens",
            "reported_tokens",
            "unresolved_requests",
        )
    }
    return RouterFigures(
        requests=sum(served.values()),
        by_policy=served,
        refused=outcomes.get("refused", 0),
        fallbacks=total["fallbacks"],
        endpoints=len(up),
        endpoints_up=sum(up.values()),
        busy_endpoints=sum(1 for number in queued.values() if number),
        prompt=total["prompt_tokens"],
        available=total["available_tokens"],
        chosen=total["chosen_tokens"],
        reported=total["reported_tokens"],
        load=causes.get("load", 0),
        staleness=causes.get("staleness", 0),
        prediction=causes.get("prediction", 0),
        unresolved=total["unresolved_requests"],
    )


def _by_label(text: str, name: str, label: str) -> dict[str, int]:
    """The samples of a metric, summed by the value of one of their labels."""
    sums: dict[str, int] = {}
    for labels, value in re.findall(rf"^{re.escape(name)}{{(.*)}} (\S+)$", text, re.MULTILINE):
        found = re.search(rf'(?:^|,){label}="((?:[^"\\]|\\.)*)"', labels)
        if found is not None:
            sums[found[1]] = sums.get(found[1], 0) + int(float(value))
    return sums


def diagnose(figures: RouterFigures, publishers: Sequence[PublisherRow] | None) -> Iterator[Finding]:
    """Every reason that the figures show. `publishers` are those of the index, None if it was not asked."""
    yield _endpoints(figures)
    if figures.requests < ENOUGH_REQUESTS:
        yield Finding("note", "requests", f"{figures.requests} so far, which says little", "send more requests")
        return
    reasons = [
        *_policy(figures),
        *_index_away(figures),
        *_short_prompts(figures),
        *_events(figures, publishers),
        *_unknown_hits(figures, publishers),
        *_false_hits(figures),
        *_overload(figures),
        *_unresolved(figures),
    ]
    yield from reasons
    if all(each.level != "problem" for each in reasons):
        yield _result(figures)


def _endpoints(figures: RouterFigures) -> Finding:
    found = f"{figures.endpoints_up} of {figures.endpoints} in the rotation"
    if figures.endpoints_up == 0:
        return Finding("problem", "engines", found, "look at GET /v1/endpoints and at the engines' /health")
    if figures.endpoints_up == 1:
        step = "add an engine of the same model: with one engine, every policy makes the same choice"
        return Finding("problem", "engines", found, step)
    return Finding("ok", "engines", found)


def _policy(figures: RouterFigures) -> Iterator[Finding]:
    if not figures.by_policy.get("kv"):
        names = ", ".join(sorted(figures.by_policy))
        yield Finding("problem", "policy", f"no request was placed by kv, but by {names}", "start with --policy kv")


def _index_away(figures: RouterFigures) -> Iterator[Finding]:
    share = figures.fallbacks / figures.requests
    if share >= MUCH:
        found = f"{share:.0%} of the requests were placed by load, because the index did not answer in time"
        step = "check the index's /readyz and the time of its /v1/match, and the engines' /tokenize if prompts are text"
        yield Finding("problem", "index", found, step)


def _short_prompts(figures: RouterFigures) -> Iterator[Finding]:
    mean = figures.prompt / figures.requests
    if mean < SHORT_TOKENS:
        found = f"prompts have {mean:.0f} tokens on average, so there is little that could be cached"
        yield Finding("problem", "prompts", found, "expect gains from prompts that share hundreds of tokens")


def _events(figures: RouterFigures, publishers: Sequence[PublisherRow] | None) -> Iterator[Finding]:
    if publishers is None:
        if not figures.available:
            step = "pass --index URL, so that doctor can look at the publishers"
            yield Finding("note", "events", "the index named no hit for any request", step)
        return
    live = [row for row in publishers if row.state == "live"]
    if not live:
        states = ", ".join(sorted({row.state for row in publishers})) or "there are none"
        yield Finding("problem", "events", f"no publisher is live ({states})", "kvsync tail shows what an engine sends")
    elif not any(row.blocks for row in live):
        step = "start the engines with enable_kv_cache_events, and check their endpoints with kvsync tail"
        yield Finding("problem", "events", "the publishers are live, and announced no block", step)
    elif len(live) < len(publishers):
        away = ", ".join(f"{row.name} is {row.state}" for row in publishers if row.state != "live")
        yield Finding("problem", "events", f"some publishers are not matched: {away[:300]}", "see the reasons at /ui")


def _unknown_hits(figures: RouterFigures, publishers: Sequence[PublisherRow] | None) -> Iterator[Finding]:
    """Hits that engines find and the index does not know, although it has blocks of them."""
    if figures.staleness <= MUCH * max(figures.reported, 1):
        return
    share = figures.staleness / figures.reported
    found = f"the index did not know {share:.0%} of the tokens that engines found in their caches"
    has_blocks = publishers is None or any(row.blocks for row in publishers)
    if not has_blocks:
        return  # `_events` says why
    if not figures.available:
        step = (
            "check that the index tokenizes as the engines do: the same tokenizer and chat template, the same model"
            " name, adapter and cache salt"
        )
        yield Finding("problem", "tokenizer", f"{found}, and it named no hit for any request", step)
    else:
        step = "compare with kvsync audit, and check the lag of the publishers; a late index learns old prompts slowly"
        yield Finding("problem", "staleness", found, step)


def _false_hits(figures: RouterFigures) -> Iterator[Finding]:
    named = figures.reported + figures.prediction - figures.staleness
    if figures.prediction > MUCH * max(named, 1):
        found = f"engines did not find {figures.prediction / named:.0%} of the tokens that the index named"
        step = "run kvsync audit; blocks may also be evicted before a request is scheduled: give engines more cache"
        yield Finding("problem", "prediction", found, step)


def _overload(figures: RouterFigures) -> Iterator[Finding]:
    if figures.endpoints_up and figures.busy_endpoints == figures.endpoints_up and figures.load > 0:
        found = "requests wait on every engine at this moment, so load decides more than caches"
        yield Finding("problem", "load", found, "add engines, or limit what is admitted")
    elif figures.load > MUCH * max(figures.available, 1):
        share = figures.load / figures.available
        found = f"{share:.0%} of the tokens that were cached somewhere were given up for a less busy engine"
        yield Finding("problem", "load", found, "add engines, or lower --prefill-weight and --decode-weight")
    if figures.refused > MUCH * figures.requests:
        found = f"{figures.refused} of {figures.requests} requests were refused"
        yield Finding("problem", "admission", found, "add engines, or raise the limits; 404 means an unknown model")


def _unresolved(figures: RouterFigures) -> Iterator[Finding]:
    share = figures.unresolved / figures.requests
    if share > MOST:
        step = "start vLLM with --enable-prompt-tokens-details, and stream with stream_options.include_usage"
        found = f"engines did not say what they had cached for {share:.0%} of the requests"
        yield Finding("note", "reports", found, step)


def _result(figures: RouterFigures) -> Finding:
    hit = figures.chosen / figures.prompt if figures.prompt else 0.0
    lost = (figures.load + figures.prediction) / figures.available if figures.available else 0.0
    found = f"{hit:.0%} of the prompt tokens were cached where they went; {lost:.0%} of what was available was lost"
    if hit < MUCH:
        return Finding("problem", "prompts", f"{found}. Prompts share little", f"{_GUIDE}; try another workload")
    return Finding("ok", "routing", found)


async def check_routing(router_url: str, index_url: str | None) -> list[Finding]:
    """Ask the router and, if it is given, the index."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)) as session:
        try:
            async with session.get(f"{router_url.rstrip('/')}/metrics", allow_redirects=False) as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError, OSError, UnicodeDecodeError) as error:
            return [Finding("problem", "router", f"{router_url}: {describe(error)}", "pass --router URL")]
        if response.status != 200 or "kvsync_router_" not in text:
            return [Finding("problem", "router", f"{router_url}: no metrics of a router", "pass --router URL")]
        publishers, away = None, []
        if index_url is not None:
            try:
                index = AsyncIndexClient(index_url, session=lambda: session)
                publishers = await index.publishers()
            except (IndexClientError, ValueError) as error:
                away = [Finding("problem", "index", str(error), "pass --index URL")]
        return [*away, *diagnose(read_figures(text), publishers)]
