"""Routing regret: how many cached tokens a request could have found, and why it found fewer.

Three figures belong to each request, all in prompt tokens:

- available: the longest hit that the index named for any endpoint that could take the request
- chosen: the hit that the index named for the endpoint that answered
- reported: the hit that this endpoint's engine reported in the usage of its answer

What was lost has three causes. Together they explain the difference exactly:
`available - reported = load + prediction - staleness`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Regret:
    """The figures of one request, in prompt tokens."""

    available: int
    chosen: int
    reported: int | None = None
    """None if the engine did not say."""

    @property
    def load(self) -> int:
        """Tokens that another endpoint held, which was not chosen because it was busier, or could not answer."""
        return self.available - self.chosen

    @property
    def prediction(self) -> int:
        """Tokens that the index named and the engine did not find: false hits."""
        return 0 if self.reported is None else max(self.chosen - self.reported, 0)

    @property
    def staleness(self) -> int:
        """Tokens that the engine found and the index did not know: the decision was made without them."""
        return 0 if self.reported is None else max(self.reported - self.chosen, 0)


def usable_tokens(matched_tokens: int, prompt_tokens: int | None, block_size: int) -> int:
    """The part of a match that an engine can use: it computes the last token of a prompt always, and whole blocks."""
    if prompt_tokens is None or prompt_tokens <= 0 or block_size <= 0:
        return matched_tokens
    return min(matched_tokens, (prompt_tokens - 1) // block_size * block_size)


def regret_of(
    matched_tokens: Mapping[str, int],
    eligible: Iterable[str],
    chosen: str,
    *,
    block_size: int = 0,
    prompt_tokens: int | None = None,
    reported_tokens: int | None = None,
) -> Regret | None:
    """The figures of one answered request; None if the index named no hit for the endpoint that answered.

    Args:
        matched_tokens: Hits by endpoint, as the index named them; 0 included.
        eligible: The endpoints that could take the request when it was placed first.
        chosen: The endpoint that answered.
        block_size: Block size of the engines, 0 if it is not known.
        prompt_tokens: Exact length of the prompt, None if it is not known.
        reported_tokens: `cached_tokens` of the answer, None if the engine did not say.
    """
    named = matched_tokens.get(chosen)
    if named is None:
        return None
    most = max((matched_tokens.get(name, 0) for name in eligible), default=0)
    return Regret(
        available=usable_tokens(max(most, named), prompt_tokens, block_size),
        chosen=usable_tokens(named, prompt_tokens, block_size),
        reported=reported_tokens,
    )
