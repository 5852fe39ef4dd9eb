"""Hypothesis strategies for the specs that a structural schema accepts."""

from typing import Any

from hypothesis import strategies as st


def specs(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return a strategy for the values that `schema`, a structural schema of a CRD, accepts."""
    if schema.get("x-kubernetes-int-or-string"):
        return st.integers(0, 5000) | st.from_regex(schema["pattern"], fullmatch=True)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema["type"]:
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(schema["minimum"], schema["maximum"])
        case "string":
            text = st.from_regex(schema["pattern"], fullmatch=True) if "pattern" in schema else st.text(max_size=20)
            return text.filter(lambda value: len(value) <= schema["maxLength"] and "\n" not in value)
        case "array":
            least = schema.get("minItems", 0)
            return st.lists(specs(schema["items"]), min_size=least, max_size=min(least + 3, schema["maxItems"]))
        case "object" if "additionalProperties" in schema:
            keys = st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8})?", fullmatch=True)
            return st.dictionaries(keys, specs(schema["additionalProperties"]), max_size=3)
    required = set(schema.get("required", []))
    fields = {name: specs(child) for name, child in schema.get("properties", {}).items()}
    return st.fixed_dictionaries(
        {name: value for name, value in fields.items() if name in required},
        optional={name: value for name, value in fields.items() if name not in required},
    )
