"""JSON Schemas as the API takes them. Pure.

`parametersJsonSchema` and `responseJsonSchema` take JSON Schema as it is and pass over keywords that they do not know.
Three forms that generators of schemas commonly write are refused or lost, and have an equal that is not: members beside
`$ref`, `const`, and values without their type.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import msgspec

_MAPS: Final = frozenset({"properties", "$defs", "definitions", "patternProperties"})
_SCHEMAS: Final = frozenset({"items", "additionalProperties", "not", "if", "then", "else", "contains"})
_TYPES: Final = {str: "string", bool: "boolean", int: "integer", float: "number"}
_LISTS: Final = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})


@functools.lru_cache(maxsize=256)
def as_taken(schema: bytes) -> bytes:
    """The schema, rewritten where it must be. Raises msgspec.DecodeError and RecursionError for what is no JSON."""
    if not any(word in schema for word in (b'"$ref"', b'"const"', b'"enum"')):
        return schema
    return msgspec.json.encode(_rewritten(msgspec.json.decode(schema)))


def _rewritten(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    out: dict[str, Any] = {}
    for name, value in schema.items():
        if name in _MAPS and isinstance(value, dict):
            out[name] = {key: _rewritten(each) for key, each in value.items()}
        elif name in _SCHEMAS:
            out[name] = _rewritten(value)
        elif name in _LISTS and isinstance(value, list):
            out[name] = [_rewritten(each) for each in value]
        else:
            out[name] = value
    if "const" in out:
        out.setdefault("enum", [out["const"]])
        del out["const"]
    if "type" not in out and isinstance(out.get("enum"), list):
        # Without it the values mean nothing to the API.
        kinds = {_TYPES.get(type(value)) for value in out["enum"]}
        kind = kinds.pop() if len(kinds) == 1 else None
        if kind is not None:
            out["type"] = kind
    if "$ref" in out and not all(name.startswith("$") for name in out) and "anyOf" not in out:
        out["anyOf"] = [{"$ref": out.pop("$ref")}]
    return out
