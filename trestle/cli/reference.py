"""The page of every key of the configuration file, docs/configuration.md, from the file's JSON Schema. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

Schema = Mapping[str, Any]
_HEAD: Final = """\
# Configuration

Made by `make schema` from the settings of both services; edits are lost. The same for editors and other tools:
[config.schema.json](config.schema.json).

One YAML file, of which the gateway reads `gateway` and each worker `worker`. An unknown key, a key twice or a value of
the wrong kind is an error that names its path. Secrets are named by environment variable (keys that end in `_env` or
`_envs`). Both services read a changed file while they serve; the log names what needs a restart
([operations.md](operations.md#stop-and-start)). `NAME` stands for a name of your choice, `[]` for each of a list.
"""
_BOUNDS: Final = {"minimum": "from {}", "exclusiveMinimum": "above {}", "maximum": "up to {}"}
_PLAIN: Final = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}


def page(schema: Schema) -> str:
    """The whole page: a section for each mapping of keys, in the order of the file, its keys in a table."""
    return _HEAD + "".join(_Page(schema["$defs"]).sections(schema))


class _Page:
    """definitions: the schema's own, by name."""

    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self._definitions = definitions
        self._places: dict[str, str] = {}

    def sections(self, schema: Schema, path: str = "") -> Iterator[str]:
        """One for these keys, then those of what stands in them. path: where they stand; empty for the file itself."""
        properties = schema["properties"]
        # All places first: a key's cell says where its own keys are told, here or at a place that was before.
        inner = [
            (place, name)
            for key, value in properties.items()
            for place, name in self._inner(value, f"{path}.{key}".lstrip("."))
            if self._places.setdefault(name, place) == place
        ]
        if path:
            yield f"\n## `{path}`\n\n{self._words(schema)}| key | value | default |\n|---|---|---|\n"
            required = schema.get("required", [])
            for key, value in properties.items():
                default = "needed" if key in required else self._default(value)
                yield f"| `{key}` | {self._kind(value)} | {default} |\n"
        for place, name in inner:
            yield from self.sections(self._definitions[name], place)

    def _inner(self, value: Schema, path: str) -> Iterator[tuple[str, str]]:
        """The places within a key's value that have keys of their own, and their definitions' names."""
        if "$ref" in value:
            yield path, _name(value)
        for each in value.get("anyOf", ()):
            yield from self._inner(each, path)
        if isinstance(items := value.get("items"), dict):
            yield from self._inner(items, f"{path}[]")
        if isinstance(values := value.get("additionalProperties"), dict):
            yield from self._inner(values, f"{path}.NAME")

    def _kind(self, value: Schema) -> str:
        """What may stand there, in words."""
        if "$ref" in value:
            place = self._places[_name(value)]
            return f"[keys of `{place}`](#{re.sub('[^a-z0-9_-]', '', place.lower())})"
        if "anyOf" in value:
            return " or ".join(self._kind(each) for each in value["anyOf"] if each.get("type") != "null")
        if "enum" in value:
            return " or ".join(f"`{each}`" for each in value["enum"])
        if value.get("type") == "array":
            return f"list: {self._kind(value['items'])}" if value.get("items") else "list"
        if value.get("type") == "object":
            return f"by name: {self._kind(value['additionalProperties'])}"
        bounds = [words.format(value[bound]) for bound, words in _BOUNDS.items() if bound in value]
        return ", ".join([_PLAIN[value["type"]], *bounds])

    def _default(self, value: Schema) -> str:
        default = value.get("default")
        if default is None:
            return "absent"
        return "their own" if "$ref" in value else f"`{json.dumps(default, ensure_ascii=False)}`"

    def _words(self, schema: Schema) -> str:
        words = schema.get("description")
        return f"{words}\n\n" if words else ""


def _name(value: Schema) -> str:
    return str(value["$ref"]).rpartition("/")[2]
