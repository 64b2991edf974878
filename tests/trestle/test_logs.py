"""How lines are written: as text and as JSON, ours and the libraries'."""

from __future__ import annotations

import errno
import io
import json
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from trestle import logs
from trestle.errors import CallError, Reason

SECRET = "sk-what-nobody-may-read"


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """What was logged since this was asked last; logging is as it was afterwards."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield lambda: capsys.readouterr().err
    logging.captureWarnings(False)
    root.handlers[:], level = before
    root.setLevel(level)
    for name in ("gateway", "worker", "trestle"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def lines(said: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.splitlines()]


class Whose:
    def log_fields(self) -> Mapping[str, str]:
        return {"request_id": "r1", "account": "acme", "session": "s1"}


def crash(text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError as error:
        raise RuntimeError(f"again {text}") from error


def test_json(written: Callable[[], str]) -> None:
    logs.configure("json", "info", service="worker", family="openai")
    logging.getLogger("worker").info("%s things", 3, extra={"upstream": "u", "seconds": 0.5, "odd": object})
    (line,) = lines(written())
    timestamp = line.pop("timestamp")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", timestamp)
    assert abs(datetime.now(UTC) - datetime.fromisoformat(timestamp)).days == 0
    assert line.pop("odd") == "<class 'object'>"
    assert line == {
        "level": "info",
        "logger": "worker",
        "service": "worker",
        "family": "openai",
        "event": "3 things",
        "upstream": "u",
        "seconds": 0.5,
    }


@pytest.mark.parametrize(
    ("value", "shown"),
    [("plain", "plain"), ("", ""), (None, ""), (True, "true"), (0.25, "0.25"), ("a b", '"a b"'), ("a\nb", r'"a\nb"')],
)
def test_text(written: Callable[[], str], value: object, shown: str) -> None:
    logs.configure("text", "info", service="gateway")
    logging.getLogger("gateway").warning("an\nevent", extra={"one": value})
    (line,) = written().splitlines()
    assert line.partition(" ")[2] == rf"WARNING gateway: an\nevent one={shown}"


def test_a_stack_that_is_asked_for_is_a_field(written: Callable[[], str]) -> None:
    logs.configure("json", "info", service="gateway")
    logging.getLogger("gateway").info("here", stack_info=True)
    (line,) = lines(written())
    assert "test_a_stack_that_is_asked_for_is_a_field" in line["stack"]
    assert "stack_info" not in line


def test_what_is_served_stands_on_every_line(written: Callable[[], str]) -> None:
    logs.configure("json", "info", service="gateway")
    token = logs.serving.set(Whose())
    logging.getLogger("gateway").info("ours")
    logging.getLogger("aiohttp.server").error("a library's")
    logs.serving.reset(token)
    logging.getLogger("gateway").info("nobody's")
    ours, library, nobody = lines(written())
    for line in (ours, library):
        assert (line["request_id"], line["account"], line["session"]) == ("r1", "acme", "s1")
    assert library["logger"] == "aiohttp.server"
    assert "request_id" not in nobody


def test_libraries_are_heard_from_a_warning_on(written: Callable[[], str]) -> None:
    logs.configure("json", "debug", service="gateway")
    for name in ("gateway.store", "aiosqlite", "google.auth"):
        logging.getLogger(name).debug("the value %s", SECRET)
    logs.set_level("error")
    logging.getLogger("gateway").warning("not this")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("this", RuntimeWarning, stacklevel=1)
    first, second = lines(written())
    assert first["logger"] == "gateway.store"
    assert second["logger"] == "py.warnings"


@pytest.mark.parametrize("format_", ["text", "json"])
def test_a_traceback_has_no_text_of_an_exception(written: Callable[[], str], format_: logs.Form) -> None:
    logs.configure(format_, "info", service="gateway")
    try:
        crash(SECRET)
    except RuntimeError:
        logging.getLogger("gateway").exception("failed")
    said = written()
    assert SECRET not in said
    assert said.count("Traceback (most recent call last):") == 2
    assert "ValueError" in said
    assert "RuntimeError" in said
    assert "in crash" in said


def test_what_the_system_says_of_its_errors_is_kept() -> None:
    assert logs.words(OSError(24, "Too many open files", SECRET)) == "OSError: Too many open files"
    assert logs.words(KeyError(SECRET)) == "KeyError"


def test_asyncio_says_what_happened_and_not_with_what(written: Callable[[], str]) -> None:
    logs.configure("json", "info", service="gateway")
    log = logging.getLogger("asyncio")
    log.error("Task exception was never retrieved\nfuture: <Task exception=ValueError(%r)>", SECRET)
    log.error("Exception in callback work(%r)", SECRET)
    log.error("Exception in callback <built-in %s>", SECRET)
    events = [line["event"] for line in lines(written())]
    assert events == ["Task exception was never retrieved", "Exception in callback work", "Exception in callback"]


def test_an_errors_message_is_logged_where_it_quotes_nobody() -> None:
    ours = CallError(Reason.OVERLOADED, "Full.")
    assert logs.failure(ours) == {"reason": "OVERLOADED", "why": "Full."}
    theirs = CallError(Reason.UPSTREAM_CREDENTIAL, f"No {SECRET}.", upstream="u", upstream_status=401)
    assert logs.failure(theirs) == {"reason": "UPSTREAM_CREDENTIAL", "upstream": "u", "upstream_status": 401}
    for reason in set(Reason) - logs.OWN_WORDS:
        assert SECRET not in str(logs.failure(CallError(reason, SECRET)))
    for reason in logs.OWN_WORDS:
        assert SECRET not in str(logs.failure(CallError(reason, SECRET, upstream_status=500)))


class Disk(io.RawIOBase):
    """A file on a disk. room: for so many bytes more."""

    def __init__(self) -> None:
        self.room = 0
        self.held = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = bytes(data[: self.room])
        self.room -= len(taken)
        self.held += taken
        return len(taken)


@pytest.mark.usefixtures("written")
def test_what_a_full_disk_does_not_take_spoils_no_other_line(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BufferedWriter(disk)))
    logs.configure("json", "info", service="gateway")
    disk.room = 40
    for said in ("half a line", "nothing"):
        logging.getLogger("gateway").info(said)
    disk.room = 10_000
    for said in ("one", "two"):
        logging.getLogger("gateway").info(said)
    half, *whole = disk.held.decode().splitlines()
    assert len(half) == 40
    assert [json.loads(line)["event"] for line in whole] == ["one", "two"]
    sys.stderr.flush()
    assert disk.held.endswith(b"\n")
