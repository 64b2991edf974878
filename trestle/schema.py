"""The JSON Schema of a service's settings, in which every struct is described with all that its keys mean."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import msgspec


def schema(type: Any) -> bytes:  # noqa: A002 (msgspec's own word for it)
    """The schema as a document. msgspec describes a struct by its own docstring alone; here those of the structs whose
    keys it takes over come first."""
    document = msgspec.json.schema(type)
    for struct in set(_structs(msgspec.inspect.type_info(type), set())):
        definitions, name = document["$defs"], struct.__name__
        # Two structs of one name stand there with their modules'.
        definition = definitions.get(name) or definitions[f"{struct.__module__}.{name}"]
        if words := _words(struct):
            definition["description"] = words
        else:
            definition.pop("description", None)
    return msgspec.json.format(msgspec.json.encode(document))


def _structs(info: Any, seen: set[Any]) -> Iterator[Any]:
    """Every struct class that the type leads to."""
    if isinstance(info, msgspec.inspect.StructType):
        if info.cls in seen:
            return
        seen.add(info.cls)
        yield info.cls
        inner = [field.type for field in info.fields]
    else:
        one = (getattr(info, "item_type", None), getattr(info, "value_type", None))
        inner = [*getattr(info, "types", ()), *(each for each in one if each is not None)]
    for each in inner:
        yield from _structs(each, seen)


def _words(struct: Any) -> str:
    """The docstrings of a struct and of those that it takes keys from, the plainest first."""
    line = struct.__mro__[: struct.__mro__.index(msgspec.Struct)]
    own = [each.__dict__.get("__doc__") for each in reversed(line)]
    return "\n\n".join(inspect.cleandoc(words) for words in own if words)
