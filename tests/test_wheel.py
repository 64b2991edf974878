"""The wheel: what it holds is enough to be installed and used without the source beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from support.services import ROOT

from trestle import __version__

PACKAGES = ("trestle", "gateway", "worker")
# Deliberately from another folder than the source's, and with nothing of the caller's own in the way.
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
MIGRATED = """
import asyncio, sqlite3, sys
import gateway
from gateway.store.database import Database, parse
from gateway.store.migrate import migrate

async def main():
    database = Database(parse("sqlite:///made.db"))
    await migrate(database)
    await database.close()

asyncio.run(main())
print(gateway.__file__)
print(*[name for name, in sqlite3.connect("made.db").execute("SELECT name FROM sqlite_master WHERE type = 'table'")])
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since building writes beside the source; from as much of it as the images are built from."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path_factory.mktemp("wheel")
    command = ["pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    run(sys.executable, "-m", *command, str(source), cwd=source)
    (made,) = folder.glob("*.whl")
    return made


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, env=CLEAN, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_file_of_the_packages_is_in_it(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    ours = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"trestle/py.typed", "trestle/v1/chat_pb2.pyi"} <= ours
    assert held == ours


def test_it_installs_and_runs_without_the_source(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    install = ["pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps", str(wheel)]
    run(sys.executable, "-m", *install, cwd=tmp_path)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(str(python), "-c", where, cwd=tmp_path).strip())
    # What it depends on is taken from the environment of the tests, after what was installed here.
    (packages / "tests.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")

    assert run(str(python.with_name("trestle")), "--version", cwd=tmp_path) == f"trestle {__version__}\n"
    file, tables = run(str(python), "-c", MIGRATED, cwd=tmp_path).splitlines()
    assert Path(file).parent == packages / "gateway"
    assert {"accounts", "keys", "alembic_version"} <= set(tables.split())
    config = ROOT / "trestle.yaml"
    for service in (["gateway"], ["worker", "echo"]):
        assert "is right" in run(str(python), "-m", *service, "--config", str(config), "--check", cwd=tmp_path)
