"""What a model name means: a base model, another name of it, or an adapter.

Engines say so in `/v1/models`, and one engine's statement must not change what a name means for the others.

- A name under which a publisher announces its events is a base model, whatever an engine says of it.
- Any other name means what most of the endpoints that list it say. If as many call it an adapter as call it a further
  name of the base model, it is an adapter: a wrong guess then misses hits, and the other one would claim false ones.
- The base model is always the one that the endpoint's publisher announces, never the `parent` in the list.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Protocol


class ServesModels(Protocol):
    """What is known of one endpoint."""

    @property
    def base_model(self) -> str:
        """The model that its publisher announces."""
        ...

    @property
    def models(self) -> Mapping[str, str | None]:
        """The names in its `/v1/models`, each with its parent."""
        ...


def meaning_of(model: str, endpoints: Iterable[ServesModels]) -> tuple[str, str | None]:
    """(base model, adapter) behind the model name of a request."""
    votes: Counter[tuple[str, bool]] = Counter()
    for endpoint in endpoints:
        if endpoint.base_model == model:
            return model, None
        if model in endpoint.models:
            votes[endpoint.base_model, endpoint.models[model] is not None] += 1
    if not votes:
        return model, None
    base, adapter = max(votes, key=lambda meaning: (votes[meaning], meaning[1], meaning[0]))
    return base, model if adapter else None
