"""`trestle doctor`: every service looks at all that it needs; what they find, and what helps."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec

from trestle.cli.plan import families, plan
from trestle.config import ConfigError, read
from trestle.findings import Finding

_WORDS: Final = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}
_COLOURS: Final = {"ok": "32", "warn": "33", "fail": "31"}
_SECONDS: Final = 60.0


def doctor(config: Path, *, ask: bool, as_json: bool) -> int:
    """Prints every finding; returns 1 where something fails. ask: whether upstreams are asked with our credentials."""
    try:
        document = read(config)
    except ConfigError as error:
        found = [Finding("fail", str(config), str(error), "put it right in the file")]
    else:
        found = _look(config, document, ask=ask)
    for finding in found:
        print(msgspec.json.encode(finding).decode() if as_json else _line(finding))
    if not as_json:
        worst = [sum(finding.status == status for finding in found) for status in ("fail", "warn")]
        print(f"\n{len(found)} looked at, {worst[0]} failing, {worst[1]} to look after")
    return 1 if any(finding.status == "fail" for finding in found) else 0


def _look(config: Path, document: dict[str, Any], *, ask: bool) -> list[Finding]:
    left_out = plan(document, os.environ).left_out
    found = [
        Finding(
            "warn",
            f"worker.{name}",
            f"{' and '.join(variables)} {'is' if len(variables) == 1 else 'are'} not set",
            _todo(variables),
        )
        for name, variables in left_out.items()
    ]
    services = [["gateway"]] if "gateway" in document else []
    services += [
        ["worker", family, *(["--ask"] if ask else [])] for family in families(document) if family not in left_out
    ]
    with ThreadPoolExecutor() as pool:
        for each in pool.map(lambda service: _ask(service, config), services):
            found += each
    return [_expected(finding, left_out) for finding in found]


def _expected(finding: Finding, left_out: dict[str, list[str]]) -> Finding:
    """A worker that is left out does not answer, and that is no fault of its own."""
    variables = left_out.get(finding.what.removeprefix("gateway.workers."))
    if finding.status != "fail" or not variables or not finding.what.startswith("gateway.workers."):
        return finding
    return msgspec.structs.replace(finding, status="warn", said="is not served", todo=_todo(variables))


def _todo(variables: list[str]) -> str:
    return f"export {variables[0]}=...; `trestle up` leaves this worker out until then"


def _ask(service: list[str], config: Path) -> list[Finding]:
    """One service's findings."""
    command = [sys.executable, "-m", *service, "--config", str(config), "--doctor"]
    name = " ".join(service[:2])
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)  # noqa: S603
    except subprocess.TimeoutExpired:
        return [Finding("fail", name, f"did not look at itself within {_SECONDS:g} s", "try its --doctor by itself")]
    found = [msgspec.json.decode(line, type=Finding) for line in done.stdout.splitlines()]
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        said = lines[-1].removeprefix(f"{name}: ") if lines else f"ended with status {done.returncode}"
        return [*found, Finding("fail", name, said, "put it right; `trestle config check` says whether it is")]
    return [Finding("ok", name, "its part of the configuration is right"), *found]


def _line(finding: Finding) -> str:
    word = _WORDS[finding.status]
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        word = f"\033[{_COLOURS[finding.status]}m{word}\033[0m"
    line = f"{word}  {finding.what}: {finding.said}"
    return f"{line}\n        -> {finding.todo}" if finding.todo else line
