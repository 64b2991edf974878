"""Who may import whom: read from the source, imports inside functions too, and followed through our own modules."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("gateway", "worker", "trestle")
IO = ("aiohttp", "asyncio", "grpc", "uvloop")


def within(name: str, *tops: str) -> bool:
    """Whether the dotted name is one of `tops` or stands below one."""
    return any(name == top or name.startswith(f"{top}.") for top in tops)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}
HTTP2 = ("trestle.http2.frames", "trestle.http2.hpack", "trestle.http2.messages", "gateway.rpc.balance")
CODECS = ("gateway.openai", "gateway.coding", "worker.families", "worker.sse", *HTTP2)
PURE = [name for name in MODULES if within(name, *CODECS)]
FAMILIES = sorted({name.split(".")[2] for name in MODULES if name.startswith("worker.families.")})


@cache
def imports(module: str) -> frozenset[str]:
    """What the module imports by itself: every dotted name that an import statement of it loads."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found.add(base)
            # `from package import module` loads the module; `from module import name` loads nothing more.
            found.update(name for alias in node.names if (name := f"{base}.{alias.name}") in MODULES)
    return frozenset(found)


def reached(module: str) -> dict[str, str]:
    """Everything that importing the module loads, each with the module of ours that asks for it."""
    asked: dict[str, str] = {}
    left = [module]
    while left:
        here = left.pop()
        parents = [".".join(here.split(".")[:end]) for end in range(1, here.count(".") + 1)]
        for name in (*parents, *imports(here)):
            if name not in asked:
                asked[name] = here
                if name in MODULES:
                    left.append(name)
    return asked


def offences(modules: Iterable[str], *forbidden: str) -> list[str]:
    return [
        f"{module}: {asking} imports {name}"
        for module in modules
        for name, asking in sorted(reached(module).items())
        if within(name, *forbidden)
    ]


def test_the_rules_see_the_modules() -> None:
    assert {"gateway.app", "worker.service", "worker.sse", "trestle.cli.up", "gateway.openai.stream"} <= MODULES.keys()
    assert "aiohttp" in reached("gateway.app")
    assert "grpc" in reached("worker.service")
    assert {"worker.family", "trestle.v1.chat_pb2"} <= reached("worker.families.openai.decode").keys()


@pytest.mark.parametrize(
    ("package", "forbidden"), [("gateway", ("worker",)), ("worker", ("gateway",)), ("trestle", ("gateway", "worker"))]
)
def test_the_halves_meet_in_the_contract_only(package: str, forbidden: tuple[str, ...]) -> None:
    assert offences([name for name in MODULES if within(name, package)], *forbidden) == []


def test_codecs_are_pure() -> None:
    assert PURE
    assert offences(PURE, *IO) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_stands_alone(family: str) -> None:
    own = [name for name in MODULES if within(name, f"worker.families.{family}")]
    others = [f"worker.families.{other}" for other in FAMILIES if other != family]
    assert offences(own, *others) == []


def test_only_our_packages_stand_at_the_top() -> None:
    """A package named `proto` would hide proto-plus from whoever imports us."""
    assert not list((ROOT / "proto").rglob("*.py"))
