"""What we depend on is written down, each with what it is instead of, and nothing that is gone."""

from __future__ import annotations

import re
import tomllib

from support.services import ROOT

PAGE = ROOT / "docs" / "decisions" / "0010-what-we-depend-on.md"


def declared() -> dict[str, set[str]]:
    """The extras of each package; those of `dependencies` as `client`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: dict[str, set[str]] = {}
    for extra, requirements in {"client": project["dependencies"], **project["optional-dependencies"]}.items():
        for requirement in requirements:
            found.setdefault(re.split(r"[\[<>=; ]", requirement)[0], set()).add(extra)
    return found


def test_the_list_has_exactly_what_is_declared() -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S.*?) \| (\S.*?) \| (\S.*?) \| (\S.*?) \|$", page, re.MULTILINE)
    assert rows[0] == ("package", "extras", "instead of", "licence")
    told: dict[str, set[str]] = {}
    for packages, extras, _, _ in rows[1:]:
        for package in packages.split(", "):
            assert package not in told, f"{package} stands there twice"
            told[package] = set(extras.split(", "))
    assert told == declared()
