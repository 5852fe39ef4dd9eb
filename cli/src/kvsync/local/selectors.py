"""Label selectors in the query form of the API, `a=b,c in (d,e),!f`, to the extent that the operator writes them."""

import re
from collections.abc import Mapping

_TERM = re.compile(r"\s*([^,()]+(?:\([^)]*\))?)\s*(?:,|$)")
_SET = re.compile(r"^(\S+)\s+(in|notin)\s+\(([^)]*)\)$")


def selects(selector: str, labels: Mapping[str, str]) -> bool:
    """Whether every term of `selector` holds for `labels`; an empty selector holds for any labels."""
    return all(_holds(term.strip(), labels) for term in _TERM.findall(selector) if term.strip())


def _holds(term: str, labels: Mapping[str, str]) -> bool:
    membership = _SET.match(term)
    if membership is not None:
        key, operator, values = membership.groups()
        inside = labels.get(key) in {value.strip() for value in values.split(",")}
        return inside == (operator == "in")
    if "=" in term:
        key, _, value = term.partition("=")
        return labels.get(key.strip()) == value.strip()
    return term.removeprefix("!").strip() not in labels if term.startswith("!") else term in labels
