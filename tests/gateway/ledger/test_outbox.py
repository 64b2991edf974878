"""The outbox: what is on the disk survives its writer."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.services import ROOT

from gateway.ledger.outbox import Outbox, OutboxFullError
from gateway.ledger.rows import Row

MOST = 1_000_000


def row(name: str) -> Row:
    empty: dict[Any, Any] = {str: "", int: 0, bool: False}
    values: dict[str, Any] = {field.name: empty[field.type] for field in msgspec.structs.fields(Row)}
    return Row(**{**values, "id": name})


def ids(outbox: Outbox) -> list[str]:
    return [each.id for file in outbox.sealed() for each in outbox.read(file)[0]]


def test_rows_come_out_as_they_went_in_once_they_are_sealed(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "box", MOST)
    outbox.append([row("1"), row("2")])
    assert ids(outbox) == []
    outbox.seal()
    outbox.append([row("3")])
    outbox.seal()
    outbox.seal()
    assert ids(outbox) == ["1", "2", "3"]
    for file in outbox.sealed():
        outbox.remove(file)
    outbox.close()
    assert list((tmp_path / "box").iterdir()) == []


def test_what_a_killed_process_left_is_taken_over_once(tmp_path: Path) -> None:
    script = f"""
import os, sys
sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]
from pathlib import Path
from test_outbox import row, MOST
from gateway.ledger.outbox import Outbox
outbox = Outbox(Path(sys.argv[1]), MOST)
outbox.append([row("sealed")])
outbox.seal()
outbox.append([row("open")])
os.kill(os.getpid(), 9)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, check=False)
    assert done.returncode == -9
    living, other = Outbox(tmp_path, MOST), Outbox(tmp_path, MOST)
    living.append([row("own")])
    assert living.adopt() == 2
    assert other.adopt() == 0
    living.seal()
    assert sorted(ids(living)) == ["open", "own", "sealed"]
    assert ids(other) == []
    living.close()
    assert other.adopt() == 3, "what was not delivered is for who lives on"
    other.close()


def test_half_a_row_is_passed_over(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, MOST)
    outbox.append([row("1"), row("2")])
    outbox.seal()
    (file,) = outbox.sealed()
    file.write_bytes(file.read_bytes()[:-20])
    assert ids(outbox) == ["1"]
    assert outbox.read(file)[1] == 1
    outbox.close()


def test_a_row_that_does_not_fit_on_the_disk_spoils_no_other(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="limits of a process's files are Unix's")
    outbox = Outbox(tmp_path, MOST)
    outbox.append([row("1")])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
    try:
        with pytest.raises(OSError, match=r"full|large"):
            outbox.append([row(str(number)) for number in range(10)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    outbox.append([row("2")])
    outbox.seal()
    assert ids(outbox) == ["1", "2"]
    outbox.close()


def test_it_holds_no_more_than_it_may(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, 2000)
    outbox.append([row("1")])
    outbox.seal()
    with pytest.raises(OutboxFullError):
        outbox.append([row(str(number)) for number in range(10)])
    outbox.append([row("last")], beyond=True)
    outbox.seal()
    assert ids(outbox) == ["1", "last"]
    for file in outbox.sealed():
        outbox.remove(file)
    outbox.append([row("2")])
    outbox.close()


def test_nobody_sees_a_lock_that_is_not_held(tmp_path: Path) -> None:
    """Else who is being born could be taken for dead, and what it writes would be nobody's."""
    living = Outbox(tmp_path, MOST)
    seen: list[str] = []

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "fcntl.flock" and arguments[1] & fcntl.LOCK_EX and not seen:
            seen.extend(file.name for file in tmp_path.glob("*.lock"))

    sys.addaudithook(look)
    newborn = Outbox(tmp_path, MOST)
    assert len(seen) == 1  # the other one's
    assert len(list(tmp_path.glob("*.lock"))) == 2
    assert living.adopt() == 0
    newborn.close()
    living.close()
