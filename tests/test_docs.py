"""README and docs/: what they link to is there, and what they show of a configuration may stand in one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
import yaml
from support.services import ROOT

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FILE = re.compile(
    r"(?<![\w/.-])(?:bench|deploy|docs|gateway|proto|requirements|tests|trestle|worker)/[\w./-]+"
    r"\.(?:py|md|ya?ml|json|proto|mjs|txt)\b"
)
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The anchors of its headings, as they are made where the page is read."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[str]:
    yield from _LINK.findall(_FENCED.sub("", page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_linked_to_is_there(page: Path) -> None:
    for link in links(page):
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_of_ours_that_it_names_are_there(page: Path) -> None:
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    assert [name for name in _FILE.findall(text) if not (ROOT / name).exists() and "NAME" not in name] == []


def test_every_page_is_found_from_the_readme() -> None:
    found: set[Path] = set()
    ahead = [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in found:
            continue
        found.add(page)
        files = [link.partition("#")[0] for link in links(page) if not link.startswith(("http", "#"))]
        for target in ((page.parent / file).resolve() for file in files):
            ahead += target.glob("*.md") if target.is_dir() else [target] if target.suffix == ".md" else []
    assert found == set(PAGES)


def test_configurations_fit_the_schema() -> None:
    """Whole or in part: a key that is needed may be left out in an example, a wrong one may not stand there."""
    schema = json.loads((ROOT / "docs" / "config.schema.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    shown = 0
    for page in PAGES:
        for block in re.findall(r"^```yaml\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            document = yaml.safe_load(block)
            if document.keys().isdisjoint(("gateway", "worker")):
                continue
            shown += 1
            errors = [error for error in validator.iter_errors(document) if error.validator != "required"]
            assert [(error.json_path, error.message) for error in errors] == [], page
    assert shown >= 9
