"""What the images install: parts of one lock, each with all that its service imports and nothing of the other's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
from support.services import ROOT

# A requirement and its hashes, on lines that go on.
_PIN = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>\S+)(?P<hashes>(?: \\\n +--hash=\S+)+)", re.MULTILINE)
FRESH = "run `make lock`, or pip-compile as the Makefile does"
EXTRAS = {"gateway": ("gateway", "traces"), "worker": ("worker", "gemini", "traces")}
# Database drivers, and what serves HTTP; what knows a provider, and what speaks to one.
FOREIGN = {
    "worker": {"sqlalchemy", "asyncpg", "aiosqlite", "alembic", "redis", "aiohttp"},
    "gateway": {"google-auth", "cryptography", "httptools"},
}
# Run in a new process, in which packages that the image has not cannot be imported.
IMPORTS = """
import importlib, json, pkgutil, sys
from importlib.machinery import PathFinder
missing, service = set(json.loads(sys.argv[1])), sys.argv[2]

class WithoutThem(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in missing else super().find_spec(name, path, target)

sys.meta_path[:] = [WithoutThem if finder is PathFinder else finder for finder in sys.meta_path]
package = importlib.import_module(service)
for found in pkgutil.walk_packages(package.__path__, service + "."):
    if not found.name.endswith(("__main__", "migrations.env")):
        importlib.import_module(found.name)
importlib.import_module(service + ".__main__")
"""


def pins(name: str) -> dict[str, tuple[str, frozenset[str]]]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    return {
        match["name"]: (match["version"], frozenset(re.findall(r"sha256:\w+", match["hashes"])))
        for match in _PIN.finditer(text)
    }


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("image", EXTRAS)
def test_an_images_lock_is_a_part_of_the_whole(image: str) -> None:
    whole, part = pins("run"), pins(image)
    assert part
    assert {name: pin for name, pin in part.items() if whole.get(name) != pin} == {}, FRESH


@pytest.mark.parametrize("image", EXTRAS)
def test_it_has_what_is_declared(image: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [project["optional-dependencies"][extra] for extra in EXTRAS[image]]
    declared = [each for group in (project["dependencies"], *extras) for each in group]
    names = {plain(re.split(r"[\[<>=;]", each)[0]) for each in declared}
    assert names <= pins(image).keys(), FRESH


def test_together_they_are_all_of_it() -> None:
    assert pins("gateway").keys() | pins("worker").keys() == pins("run").keys(), FRESH


@pytest.mark.parametrize("image", EXTRAS)
def test_it_has_nothing_of_the_others(image: str) -> None:
    assert pins(image).keys() & FOREIGN[image] == set()


@pytest.mark.parametrize("service", EXTRAS)
def test_it_has_all_that_the_service_imports(service: str) -> None:
    there = pins(service).keys() | {"trestle"}
    missing = [top for top, names in packages_distributions().items() if not {plain(each) for each in names} & there]
    assert {"pytest", "_pytest"} <= set(missing)
    command = [sys.executable, "-c", IMPORTS, json.dumps(missing), service]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
