"""docs/configuration.md: every key of the file, told once, from what the services say of their settings."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest
from support.services import ROOT

from trestle.cli.reference import page

PAGE = ROOT / "docs" / "configuration.md"


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((ROOT / "docs" / "config.schema.json").read_text(encoding="utf-8"))
    return document


def test_the_committed_page_is_what_the_services_say() -> None:
    command = [sys.executable, "-m", "trestle", "config", "reference"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == PAGE.read_text(encoding="utf-8"), "run `make schema`"


def test_each_kind_of_settings_has_one_section_and_each_link_a_section(schema: dict[str, Any]) -> None:
    text = page(schema)
    headings = re.findall(r"^## `(.*)`$", text, re.MULTILINE)
    assert len(headings) == len(set(headings)) == len(schema["$defs"])
    anchors = {re.sub(r"[^a-z0-9_-]", "", heading.lower()) for heading in headings}
    assert len(anchors) == len(headings)
    assert set(re.findall(r"\]\(#([^)]*)\)", text)) <= anchors


def test_every_key_is_described(schema: dict[str, Any]) -> None:
    """In its own struct's words, or in those of one that it takes keys from."""
    blocks = {"AnthropicBlock", "GeminiBlock", "OpenaiBlock"}  # `upstreams` and nothing else
    silent = [
        f"{name}.{key}"
        for name, definition in schema["$defs"].items()
        for key in definition["properties"]
        if name not in blocks and not re.search(rf"(?<![a-z_]){key}(?![a-z_])", definition.get("description", ""))
    ]
    assert [each for each in silent if each not in ("WorkerSettings.anthropic", "WorkerSettings.gemini")] == []


def test_cells() -> None:
    definitions = {
        "A": {
            "properties": {
                "size": {"type": "integer", "minimum": 1, "default": 3},
                "share": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
                "mode": {"enum": ["a", "b"], "default": "a"},
                "more": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/B"}], "default": None},
                "all": {"type": "array", "items": {"$ref": "#/$defs/B"}, "default": []},
                "named": {"type": "object", "additionalProperties": {"type": "string"}, "default": {}},
            },
            "required": ["share"],
        },
        "B": {"description": "Bs.", "properties": {"on": {"type": "boolean", "default": False}}},
    }
    text = page({"$defs": definitions, "properties": {"gateway": {"$ref": "#/$defs/A"}}})
    assert text.partition("## ")[2] == """\
`gateway`

| key | value | default |
|---|---|---|
| `size` | whole number, from 1 | `3` |
| `share` | number, above 0, up to 1 | needed |
| `mode` | `a` or `b` | `"a"` |
| `more` | [keys of `gateway.more`](#gatewaymore) | absent |
| `all` | list: [keys of `gateway.more`](#gatewaymore) | `[]` |
| `named` | by name: text | `{}` |

## `gateway.more`

Bs.

| key | value | default |
|---|---|---|
| `on` | true or false | `false` |
"""
