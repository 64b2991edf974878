"""Calls that a client elsewhere makes for a test: in a process that speaks JSON lines, or in a page of a browser."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from support.upstream import PATIENCE


class Call:
    """One call under way. What the client says of it: `said` (a piece of text that arrived), and at last `answer` or
    `raised`."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._words: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def feed(self, word: dict[str, Any]) -> None:
        """The client said this."""
        self._words.put_nowait(word)

    async def text(self, wanted: str) -> None:
        """Returns once so much text more has reached the client."""
        heard = ""
        while heard != wanted:
            word = await self._word()
            assert "said" in word, f"{word} after {heard!r}"
            heard += word["said"]
            assert wanted.startswith(heard), heard

    async def answer(self) -> Any:
        """What the call returned."""
        word = await self._last()
        assert "answer" in word, word
        return word["answer"]

    async def raised(self) -> dict[str, Any]:
        """What the call raised: `class`, `message`, and of the API's errors `status`, `type`, `code`, `param` and
        `request_id`."""
        word = await self._last()
        assert "raised" in word, word
        raised: dict[str, Any] = word["raised"]
        return raised

    async def _last(self) -> dict[str, Any]:
        while "said" in (word := await self._word()):
            pass
        return word

    async def _word(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            return await self._words.get()


class Driver:
    """A process that makes calls as it is told, one JSON line each, and says what came of them. hello: what it said of
    itself."""

    def __init__(self, process: asyncio.subprocess.Process, hello: dict[str, Any]) -> None:
        self.hello = hello
        self._process = process
        self._numbers = count(1)
        self._calls: dict[int, Call] = {}
        self._reading = asyncio.ensure_future(self._read())

    def start(self, do: str, request: dict[str, Any] | None = None, **more: Any) -> Call:
        """Begins a call. do: the driver's word for it. more: `options` of the SDK, and what else the word takes."""
        call = Call(next(self._numbers))
        self._calls[call.number] = call
        self._tell({"call": call.number, "do": do, "request": request or {}, **more})
        return call

    async def ask(self, do: str, request: dict[str, Any] | None = None, **more: Any) -> Any:
        """`start`, and what the call returned."""
        return await self.start(do, request, **more).answer()

    def abort(self, call: Call) -> None:
        """Lets the client give this call up."""
        self._tell({"call": call.number, "do": "abort"})

    async def end(self) -> int:
        """Closes its input, at which it ends; returns its exit status."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(PATIENCE):
            await self._reading
            return await self._process.wait()

    def _tell(self, line: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line).encode() + b"\n")

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            word = json.loads(line)
            self._calls[word["call"]].feed(word)


@asynccontextmanager
async def driver(*command: str | Path, environment: Mapping[str, str] | None = None) -> AsyncIterator[Driver]:
    """Runs a driver; its errors are shown with the test's own. environment: variables beside our own."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, limit=2**24, env={**os.environ, **(environment or {})}
    )
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        hello = await process.stdout.readline()
    assert hello, f"{command[0]} did not start"
    running = Driver(process, json.loads(hello))
    try:
        yield running
    finally:
        status = await running.end()
    assert status == 0
