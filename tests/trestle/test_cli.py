"""The `trestle` command as a process: its version, its usage, and its care for the configuration file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from support.upstream import PATIENCE

from trestle import __version__

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ("trestle.yaml", "deploy/compose/gateway-plain.yaml", "deploy/compose/gateway-database.yaml")


def trestle(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trestle", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def written(folder: Path, text: str) -> str:
    path = folder / "trestle.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_version() -> None:
    done = trestle("--version")
    assert (done.returncode, done.stdout) == (0, f"trestle {__version__}\n")


@pytest.mark.parametrize("arguments", [(), ("config",), ("upp",), ("up", "--nothing")])
def test_a_wrong_command_line_is_answered_with_usage(arguments: tuple[str, ...]) -> None:
    done = trestle(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: trestle")


@pytest.mark.parametrize("command", [("up",), ("config", "check")])
def test_a_missing_file_is_one_line(command: tuple[str, ...], tmp_path: Path) -> None:
    done = trestle(*command, "--config", str(tmp_path / "absent.yaml"))
    assert (done.returncode, done.stdout) == (2, "")
    said = "No such file or directory; --config FILE names the configuration"
    assert done.stderr == f"trestle: {tmp_path}/absent.yaml: {said}\n"


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "trestle", "config", "schema"]
    with os.fdopen(writing, "wb") as output:
        done = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_check_asks_every_service(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
gateway: {auth: open, workers: {openai: "127.0.0.1:1", echo: "127.0.0.1:2"}}
worker: {openai: {upstreams: {one: {base_url: "http://127.0.0.1:3/v1", credential_env: CHECKED_KEY}}}}
""",
    )
    done = trestle("config", "check", "--config", file, CHECKED_KEY="set")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{file}: the gateway's part is right",
        f"{file}: the openai worker's part is right",
        f"{file}: the echo worker's part is right",
    ]


def test_check_tells_every_fault_at_once(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
gateway: {auth: open, workers: {openai: "127.0.0.1:1"}, models: [{name: m, targets: [{worker: opnai, model: x}]}]}
worker: {openai: {upstreams: {one: {base_url: "http://127.0.0.1:3/v1", credential_env: UNSET_KEY}}}}
""",
    )
    done = trestle("config", "check", "--config", file, UNSET_KEY="")
    assert done.returncode == 1
    assert "gateway.models[0].targets[0].worker: 'opnai' is not one of gateway.workers" in done.stderr
    assert "worker.openai.upstreams.one.credential_env: the environment variable UNSET_KEY is not set: " in done.stderr
    assert "export UNSET_KEY=..." in done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "gateway: gateway.workers: is needed, and not there\n"),
        ("gateway: {auth: open, listen: '9080', workers: {w: '127.0.0.1:2'}}", "'9080' is not HOST:PORT"),
        ("worker: {listen: '50051'}", "worker echo: worker.listen: '50051' is not HOST:PORT"),
    ],
)
def test_what_is_said_names_the_key(tmp_path: Path, text: str, words: str) -> None:
    done = trestle("config", "check", "--config", written(tmp_path, text))
    assert done.returncode == 1
    assert words in done.stderr


def test_check_knows_that_gathered_pieces_are_no_silence(tmp_path: Path) -> None:
    text = """
gateway: {auth: open, workers: {echo: "127.0.0.1:2"}, models: [
  {name: m, targets: [{worker: echo, model: x}], idle_timeout: 0.5, flush_interval: SECONDS}]}
"""
    assert trestle("config", "check", "--config", written(tmp_path, text.replace("SECONDS", "0.4"))).returncode == 0
    for seconds, said in (("0.5", "must be less than idle_timeout"), ("11", "<= 10")):
        done = trestle("config", "check", "--config", written(tmp_path, text.replace("SECONDS", seconds)))
        assert done.returncode == 1
        assert "gateway.models[0].flush_interval" in done.stderr
        assert said in done.stderr


def test_check_knows_databases(tmp_path: Path) -> None:
    text = "gateway: {auth: open, workers: {echo: '127.0.0.1:2'}, database: 'DATABASE', admin: {key_env: CHECKED_KEY}}"
    right = written(tmp_path, text.replace("DATABASE", "postgresql://user@host/name"))
    assert trestle("config", "check", "--config", right, CHECKED_KEY="set").returncode == 0
    wrong = written(tmp_path, text.replace("DATABASE", "mysql://user@host/name"))
    done = trestle("config", "check", "--config", wrong, CHECKED_KEY="set")
    assert done.returncode == 1
    assert "gateway.database: mysql is neither sqlite nor postgresql" in done.stderr


def test_the_committed_schema_is_what_the_services_say() -> None:
    done = trestle("config", "schema")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (ROOT / "docs" / "config.schema.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CONFIGS)
def test_our_own_files_fit_the_schema(name: str) -> None:
    schema = json.loads((ROOT / "docs" / "config.schema.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    document = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    assert [error.message for error in validator.iter_errors(document)] == []
    document["gateway"]["lisen"] = "x"
    assert [error.message for error in validator.iter_errors(document)] == [
        "Additional properties are not allowed ('lisen' was unexpected)"
    ]
