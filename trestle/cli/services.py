"""The services asked as commands: is the file right (`--check`), and what may stand in it (`--schema`)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from trestle.cli.plan import families
from trestle.cli.reference import page
from trestle.config import PARTS, ConfigError, read


def check(config: Path) -> int:
    """Has each service check its part of the file and say so; returns 1 when one is not content."""
    document = read(config)
    # The echo family needs no block: its worker reads the part that all workers share.
    commands = [["gateway"], *(["worker", family] for family in [*families(document), "echo"])]
    # The list is complete first: one command's fault must not hide the next one's.
    results = [_run(*command, "--config", str(config), "--check").returncode for command in commands]
    return 1 if any(results) else 0


def schema() -> int:
    """Prints the JSON Schema of the whole file."""
    whole = _whole()
    if whole is not None:
        print(json.dumps(whole, indent=2, ensure_ascii=False))
    return 1 if whole is None else 0


def reference() -> int:
    """Prints docs/configuration.md."""
    whole = _whole()
    if whole is not None:
        print(page(whole), end="")
    return 1 if whole is None else 0


def _whole() -> dict[str, Any] | None:
    """One JSON Schema of the whole file, put together from the services' own; None where one of them failed, and said
    why."""
    definitions: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    for part in PARTS:
        answer = _run(part, "--schema", stdout=subprocess.PIPE)
        if answer.returncode:
            return None
        document = json.loads(answer.stdout)
        for name, definition in document.pop("$defs", {}).items():
            if definitions.setdefault(name, definition) != definition:
                raise ConfigError(f"both services have a {name}, and they differ")
        properties[part] = document
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The configuration file of Trestle",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": dict(sorted(definitions.items())),
    }


def _run(*arguments: str, stdout: int | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, stdout=stdout, text=True, check=False)  # noqa: S603


def seal_keys() -> int:
    """Prints a new pair: the worker's secret, and what the gateway is told."""
    try:
        from trestle.sealed import new_pair  # noqa: PLC0415 (what it needs comes with the services)
    except ImportError:
        print("trestle: seal-keys needs PyNaCl: pip install 'trestle[worker]'", file=sys.stderr)
        return 2
    pair = new_pair()
    print(f"# pair {pair.name}")
    print(f"private, for a variable that worker.seal_key_envs names:  {pair.private}")
    print(f"public, for gateway.workers.NAME.seal_key:                {pair.public}")
    return 0
