"""JSON Schemas as Anthropic's structured outputs take them. Pure.

They want every object closed, know `anyOf` but not `oneOf`, and refuse constraints on numbers, texts and arrays. What
they refuse is not dropped: it goes into the description, where the model at least reads it. A schema that refers to
itself they refuse, and so many strict tools, members that may be left out and members of several types in one request.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Final

import msgspec

STRICT_TOOLS: Final = 20
_OPTIONAL: Final = 24
_UNIONS: Final = 16
_FORMATS: Final = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
)
_KEPT: Final = frozenset({"title", "description", "$ref", "default", "enum", "const"})
_DIGITS: Final = 10
_SCHEMAS: Final = ("properties", "$defs", "definitions")
_TYPES: Final = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})


class _CannotSay(Exception):
    """The schema has a meaning that structured outputs cannot express."""


@dataclass(slots=True)
class Room:
    """What is left of the members that one request may leave open: optional ones, and ones of several types."""

    optional: int = _OPTIONAL
    unions: int = _UNIONS

    def take(self, schema: bytes) -> bool:
        """Whether there was room for a schema in its native form; what it needs is taken then."""
        optional, unions = _open_members(schema)
        if optional > self.optional or unions > self.unions:
            return False
        self.optional -= optional
        self.unions -= unions
        return True


@functools.lru_cache(maxsize=256)
def native_schema(schema: bytes) -> bytes | None:
    """The schema in the form that `output_config.format` and strict tools take, or None where it has none: a root that
    is not an object, objects open to any member, a schema that refers to itself."""
    try:
        found = msgspec.json.decode(schema)
        if not isinstance(found, dict) or found.get("type") != "object":
            return None
        converted = _converted(found)
        _follow(converted, converted, "#", (), set())
        return msgspec.json.encode(converted)
    except (msgspec.DecodeError, RecursionError, _CannotSay):
        return None


def _follow(root: Any, node: Any, place: str, within: tuple[str, ...], seen: set[str]) -> None:
    """Raises `_CannotSay` where a reference leads to what holds it. place: of the node, as references say it. within:
    the places whose references led here. seen: places that lead nowhere back."""
    if isinstance(node, list):
        for index, each in enumerate(node):
            _follow(root, each, f"{place}/{index}", within, seen)
    if not isinstance(node, dict):
        return
    for name, value in node.items():
        if name != "$ref" or not isinstance(value, str):
            _follow(root, value, f"{place}/{name}", within, seen)
        elif value.startswith("#") and value not in seen:
            if any(f"{each}/".startswith(f"{value}/") for each in (place, *within)):
                raise _CannotSay
            _follow(root, _at(root, value), value, (*within, place), seen)
            seen.add(value)


def _at(root: Any, reference: str) -> Any:
    """What a reference within the schema stands for; None where there is nothing."""
    found = root
    for step in reference.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found.get(name)
        elif isinstance(found, list) and name.isdigit() and len(name) < _DIGITS and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    return found


@functools.lru_cache(maxsize=256)
def _open_members(schema: bytes) -> tuple[int, int]:
    """How many members may be left out, and how many have several types, in a schema in its native form."""
    optional = unions = 0
    nodes: list[Any] = [msgspec.json.decode(schema)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, dict):
            unions += "anyOf" in node or isinstance(node.get("type"), list)
            properties, required = node.get("properties"), node.get("required")
            if isinstance(properties, dict):
                needed = {name for name in required if isinstance(name, str)} if isinstance(required, list) else ()
                optional += sum(name not in needed for name in properties)
            nodes += node.values()
        elif isinstance(node, list):
            nodes += node
    return optional, unions


def _converted(schema: Any) -> Any:
    if not isinstance(schema, dict):
        raise _CannotSay  # `true` and `false` are schemas too
    out: dict[str, Any] = {}
    left: dict[str, Any] = {}
    kind = schema.get("type")
    for name, value in schema.items():
        if name in _SCHEMAS and isinstance(value, dict):
            out[name] = {key: _converted(each) for key, each in value.items()}
        elif name in ("anyOf", "oneOf", "allOf") and isinstance(value, list):
            out["anyOf" if name == "oneOf" else name] = [_converted(each) for each in value]
        elif name == "items" and isinstance(value, dict):
            out[name] = _converted(value)
        elif (
            name in _KEPT
            or (name == "type" and _known_type(value))
            or (name == "required" and isinstance(value, list))
            or (name == "format" and value in _FORMATS)
            or (name == "minItems" and value in (0, 1))
        ):
            out[name] = value
        elif name == "additionalProperties":
            if value is not False:
                raise _CannotSay
        elif name not in ("$schema", "$id", "$comment"):
            left[name] = value
    if kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in schema:
        if "properties" not in schema and "additionalProperties" not in schema:
            raise _CannotSay  # an object without a word on its members is open, and closing it would empty it
        out["additionalProperties"] = False
    if "oneOf" in schema and "anyOf" in schema:
        raise _CannotSay
    if left:
        note = msgspec.json.encode(left).decode()
        said = out.get("description")
        out["description"] = f"{said}\n\n{note}" if isinstance(said, str) and said else note
    return out


def _known_type(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(each, str) and each in _TYPES for each in value)
    return isinstance(value, str) and value in _TYPES
