"""`python -m bench.load JOB`: asks a gateway as the job says, checks every answer, prints what it measured.

Job and measures are JSON. Connections are kept alive. The clocks are read at both ends of a window in the middle of the
run, and only what happens inside it counts. An answer that is not whole ends the run with status 1.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, Literal, cast

import msgspec
import uvloop

from bench.answers import MARK, fault_of_stream, fault_of_whole, model_name, request_body
from bench.clocks import Reading
from bench.http1 import AnswerReader

_DRAIN_SECONDS: Final = 20.0
STAGGER_SECONDS: Final = 0.0021
"""Between the beginnings of two held streams: 2 ms and a bit, so that their chunks do not fall together."""


class FaultError(Exception):
    """An answer was lost, cut or wrong, or the load could not be kept up as asked."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask for and how.

    shape: `closed`, each of `connections` asks again as soon as it is answered; `open`, `rate` requests a second
    whatever the answers do; `held`, `connections` streams open all the time. port: on 127.0.0.1. chunks, interval_ms,
    size: of the model's script, see `bench.answers`; a `held` stream must outlast the window. prompt_bytes: of a
    request, beyond the usual. warm_up and seconds: before the window, and of it. watch: name -> process id of whose CPU
    time to read.
    """

    shape: Literal["closed", "open", "held"]
    port: int
    headers: dict[str, str]
    watch: dict[str, int]
    seconds: float
    warm_up: float = 0.5
    stream: bool = False
    chunks: int = 1
    interval_ms: int = 0
    connections: int = 16
    rate: float = 0.0
    size: int = 0
    prompt_bytes: int = 0


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What happened in the window.

    answers: whole ones that ended in it. chunks: text chunks that came in it, in so many reads. cpu: seconds by
    process, and `load` for the load client. others: seconds of CPU that went to programs other than these. latency_ms:
    request to whole answer, the median and the 99th percentile; first_ms: to the first text; both None when nothing
    fell into the window.
    """

    seconds: float
    answers: int
    chunks: int
    reads: int
    cpu: dict[str, float]
    others: float
    latency_ms: tuple[float, float] | None
    first_ms: tuple[float, float] | None


def percentiles(seconds: list[float]) -> tuple[float, float] | None:
    """The median and the 99th percentile in milliseconds; None of nothing."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    return 1000 * ordered[len(ordered) // 2], 1000 * ordered[int(len(ordered) * 0.99)]


class Tally:
    """What the answers of a run add up to. counting: true inside the window."""

    def __init__(self) -> None:
        self.counting = False
        self.answers = 0
        self.chunks = 0
        self.reads = 0
        self.latencies: list[float] = []
        self.firsts: list[float] = []


class Connection(asyncio.Protocol):
    """One keep-alive connection: one request at a time."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._whole: asyncio.Future[tuple[int, bytes]] | None = None
        self.first_text = asyncio.Event()
        self._lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """The status and the body, once whole. Raises `FaultError` for an answer that breaks off or is not HTTP."""
        self._whole = asyncio.get_running_loop().create_future()
        self._reader = AnswerReader()
        self._body: list[bytes] = []
        self.first_text.clear()
        self._since = time.perf_counter()
        self._transport.write(request)
        return await self._whole

    async def close(self) -> None:
        """Closes the connection, whatever is under way on it."""
        self._transport.abort()
        await self._lost.wait()

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        tally = self._tally
        whole = self._whole
        if whole is None or whole.done():
            return  # beyond the end: the next answer will be wrong
        try:
            piece = self._reader.feed(data)
        except ValueError as error:
            whole.set_exception(FaultError(str(error)))
            return
        self._body.append(piece)
        texts = piece.count(MARK)
        if texts and not self.first_text.is_set():
            self.first_text.set()
            if tally.counting:
                tally.firsts.append(now - self._since)
        if texts and tally.counting:
            tally.chunks += texts
            tally.reads += 1
        if self._reader.done:
            if tally.counting:
                tally.answers += 1
                tally.latencies.append(now - self._since)
            whole.set_result((self._reader.status, b"".join(self._body)))

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set()
        if self._whole is not None and not self._whole.done():
            self._whole.set_exception(FaultError("the connection was closed before the answer's end"))


class Load:
    """One job at work."""

    def __init__(self, job: Job) -> None:
        self._job = job
        body = request_body(model_name(job.chunks, job.interval_ms, job.size), job.stream, job.prompt_bytes)
        head = "".join(f"{name}: {text}\r\n" for name, text in job.headers.items())
        self._request = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{job.port}\r\n{head}"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode() + body
        self._tally = Tally()
        self._connections: list[Connection] = []
        self._idle: list[Connection] = []
        self._stopping = False

    async def run(self) -> Measured:
        """Raises `FaultError`, alone or in a group."""
        try:
            return await self._run()
        finally:
            for connection in self._connections:
                await connection.close()

    async def _run(self) -> Measured:
        job = self._job
        shapes: dict[str, Callable[[asyncio.Event], Coroutine[Any, Any, None]]] = {
            "closed": self._closed,
            "open": self._open,
            "held": self._held,
        }
        ready = asyncio.Event()
        running = asyncio.create_task(shapes[job.shape](ready))
        window = asyncio.create_task(self._window(ready))
        try:
            await asyncio.wait((running, window), return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
                raise FaultError("the load ended before the window did")
            spent = window.result()
            self._stopping = True
            async with asyncio.timeout(_DRAIN_SECONDS):
                await running
        except TimeoutError:
            raise FaultError(f"answers are not whole {_DRAIN_SECONDS:g} s after the last request") from None
        finally:
            running.cancel()
            window.cancel()
            await asyncio.gather(running, window, return_exceptions=True)
        tally = self._tally
        if not tally.answers and not tally.chunks:
            raise FaultError(f"nothing came within {spent.wall:.1f} s")
        return Measured(
            seconds=spent.wall,
            answers=tally.answers,
            chunks=tally.chunks,
            reads=tally.reads,
            cpu=dict(spent.cpu),
            others=max(0.0, spent.machine - sum(spent.cpu.values())),
            latency_ms=percentiles(tally.latencies),
            first_ms=percentiles(tally.firsts),
        )

    async def _window(self, ready: asyncio.Event) -> Reading:
        await ready.wait()
        await asyncio.sleep(self._job.warm_up)
        watched = {**self._job.watch, "load": 0}  # 0 is this process
        try:
            before = Reading.take(watched)
            self._tally.counting = True
            await asyncio.sleep(self._job.seconds)
            self._tally.counting = False
            return Reading.take(watched).since(before)
        except OSError as error:
            raise FaultError(f"a watched process is gone: {error}") from None

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(lambda: Connection(self._tally), "127.0.0.1", self._job.port)
        except OSError as error:
            raise FaultError(f"cannot connect: {error}") from None
        self._connections.append(connection)
        return connection

    async def _ask(self, connection: Connection) -> None:
        status, body = await connection.ask(self._request)
        fault = fault_of_stream(status, body, self._job.chunks) if self._job.stream else fault_of_whole(status, body)
        if fault:
            raise FaultError(fault)

    async def _closed(self, ready: asyncio.Event) -> None:
        async def again_and_again() -> None:
            connection = await self._connect()
            while not self._stopping:
                await self._ask(connection)

        ready.set()
        await _together([again_and_again() for _ in range(self._job.connections)])

    async def _open(self, ready: asyncio.Event) -> None:
        async def once() -> None:
            connection = self._idle.pop() if self._idle else await self._connect()
            await self._ask(connection)
            self._idle.append(connection)

        ready.set()
        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            number = 0
            while not self._stopping:
                group.create_task(once())
                number += 1
                await asyncio.sleep(max(0.0, start + number / self._job.rate - time.perf_counter()))

    async def _held(self, ready: asyncio.Event) -> None:
        connections = [await self._connect() for _ in range(self._job.connections)]

        async def one(number: int, connection: Connection) -> None:
            await asyncio.sleep(number * STAGGER_SECONDS)
            await self._ask(connection)
            if not self._stopping:
                raise FaultError("a stream ended inside the window: too much for this machine")

        async def watch() -> None:
            for connection in connections:
                await connection.first_text.wait()
            ready.set()

        await _together([watch(), *(one(number, connection) for number, connection in enumerate(connections))])


async def _together(work: list[Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for each in work:
            group.create_task(each)


def first_fault(error: BaseException) -> FaultError | None:
    """The first fault of a group, however deep."""
    if isinstance(error, FaultError):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(first_fault, error.exceptions)), None)
    return None


async def measure(job: Job) -> Measured:
    """Runs the job. Raises `FaultError`."""
    try:
        return await Load(job).run()
    except BaseExceptionGroup as group:
        fault = first_fault(group)
        if fault is None:
            raise
        raise fault from None


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit status."""
    job = msgspec.json.decode(arguments[0], type=Job)
    gc.disable()  # a run is short, and a collection would show in the latencies
    try:
        measured = uvloop.run(measure(job))
    except FaultError as fault:
        print(fault, file=sys.stderr)
        return 1
    sys.stdout.buffer.write(msgspec.json.encode(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
