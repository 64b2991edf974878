"""What importing the client takes: three packages, and nothing of the process's own."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib

from support.services import ROOT

import trestle

# Run in a new process: only the standard library, the three packages and what grpcio itself needs can be imported.
ALONE = """
import json, os, sys
ALLOWED = {"google", "grpc", "trestle", "typing_extensions", *sys.stdlib_module_names}

class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Forbid())
before = dict(os.environ)
"""


def run_alone(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ALONE + code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_the_client_needs_three_packages_and_changes_no_variable() -> None:
    done = run_alone("import trestle.client; print(json.dumps([dict(os.environ) == before, 'asyncio' in sys.modules]))")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == [True, True]


def test_they_are_what_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {each.partition(">")[0] for each in project["dependencies"]}
    assert names == {"grpcio", "protobuf", "googleapis-common-protos"}


def test_the_package_itself_loads_next_to_nothing() -> None:
    done = run_alone(
        "known = set(sys.modules); import trestle; print(json.dumps(sorted(set(sys.modules) - known)))"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == ["trestle"]
    assert trestle.__version__


def test_the_command_says_what_it_needs_more() -> None:
    done = run_alone("from trestle.__main__ import main; sys.exit(main())")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "trestle: the command needs more than the client does: pip install 'trestle[cli]'\n"
