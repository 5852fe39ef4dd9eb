"""What a reader should take away from a demo, for the page and for the terminal."""

from collections.abc import Mapping
from typing import Any

from kvsync_pages import Fact
from kvsync_pages.scales import percent
from kvsync_pages.tones import BAD, GOOD

BASELINE = "round_robin"


def headline(report: Mapping[str, Any]) -> list[Fact]:
    """Return the facts: hits, prefill work saved, and wrong answers after the kill if there was one."""
    policies = report["policies"]
    name = "kv" if "kv" in policies else list(policies)[-1]
    facts = [_hits(report, name), _saved(policies, name)]
    if report["restart"]["performed"]:
        facts.append(_wrong_answers(report["restart"]))
    return facts


def _baseline(policies: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    return policies[BASELINE] if name != BASELINE and BASELINE in policies else None


def _hits(report: Mapping[str, Any], name: str) -> Fact:
    baseline = _baseline(report["policies"], name)
    against = "" if baseline is None else f"{BASELINE} {percent(baseline['hit_ratio'])}, "
    return Fact(
        f"Prompt tokens that {name} found in a cache",
        percent(report["policies"][name]["hit_ratio"]),
        f"{against}an unlimited cache {percent(report['ideal_hit_ratio'])}",
    )


def _saved(policies: Mapping[str, Any], name: str) -> Fact:
    leg, baseline = policies[name], _baseline(policies, name)
    note = f"of {leg['prompt_tokens']:,} prompt tokens"
    if baseline is not None and baseline["cached_tokens"]:
        note += f"; {leg['cached_tokens'] / baseline['cached_tokens']:.1f} times as many as {BASELINE}"
    return Fact("Prefill work saved", f"{leg['cached_tokens']:,} tokens", note)


def _wrong_answers(restart: Mapping[str, Any]) -> Fact:
    answers, publisher = restart["answers_after_kill"], restart["publisher"]
    if not answers["answers"]:
        return Fact("Wrong answers after a kill -9", "-", f"no answer about {publisher} was put to the test")
    return Fact(
        "Wrong answers after a kill -9",
        f"{answers['wrong']:,}",
        f"of {answers['answers']:,} about {publisher} after its process was killed, each compared with what the new "
        "process then found in its cache",
        BAD if answers["wrong"] else GOOD,
    )
