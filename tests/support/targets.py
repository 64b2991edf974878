"""Workers of the contract in this process, which do what a test says call by call, and a route over them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import msgspec
from support.upstream import PATIENCE

from gateway.breaker import Breakers
from gateway.routed import Budget, Network, RoutedCall
from gateway.routing import Route
from gateway.settings import BreakerSettings, GatewaySettings, RetrySettings, Target
from gateway.workers import SERVICE, Worker, read_links
from trestle.errors import DETAILS_KEY, CallError, Reason
from trestle.rpc.call import Call
from trestle.rpc.method import Method
from trestle.rpc.server import Server
from trestle.v1 import chat_pb2

Step = Callable[[Call], Awaitable[chat_pb2.ChatResponse | None]]
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def response(*chunks: chat_pb2.ChatChunk) -> chat_pb2.ChatResponse:
    return chat_pb2.ChatResponse(chunks=chunks)


STARTED = response(chat_pb2.ChatChunk(started=chat_pb2.Started(id="a", model="m")))
TEXT = response(chat_pb2.ChatChunk(text="So far"))


def says(text: str) -> Step:
    """A whole answer."""

    async def step(call: Call) -> chat_pb2.ChatResponse:
        return response(chat_pb2.ChatChunk(text=text), chat_pb2.ChatChunk(finish=chat_pb2.Finish()))

    return step


def fails(reason: Reason = Reason.UPSTREAM_OVERLOADED) -> Step:
    async def step(call: Call) -> None:
        error = CallError(reason, "no")
        await call.abort(_CODES[error.status], error.text, ((DETAILS_KEY, error.to_status()),))

    return step


def after(gate: asyncio.Event, then: Step, said: chat_pb2.ChatResponse | None = None) -> Step:
    """As `then`, but not before the gate is open. said: before that."""

    async def step(call: Call) -> chat_pb2.ChatResponse | None:
        if said is not None:
            await call.write(said)
        await gate.wait()
        return await then(call)

    return step


async def nothing(call: Call) -> chat_pb2.ChatResponse:
    """Ends well without a word."""
    return response()


async def silent(call: Call) -> None:
    """Never says anything."""
    await asyncio.Event().wait()


class Scripted:
    """One worker. asked: how many calls have come; came: set with each of them."""

    def __init__(self) -> None:
        self.asked = 0
        self.came = asyncio.Event()
        self._steps: deque[Step] = deque()

    def will(self, *steps: Step) -> None:
        """What its next calls do, each in turn."""
        self._steps += steps

    async def chat(self, request: chat_pb2.ChatRequest, call: Call) -> chat_pb2.ChatResponse | None:
        self.asked += 1
        self.came.set()
        return await self._steps.popleft()(call)


class Clock:
    """A clock that stands where the test puts it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Routed:
    """first, second: the workers behind a route's two targets, in their order. clock: the breakers'."""

    def __init__(self, network: Network, route: Route, clock: Clock, first: Scripted, second: Scripted) -> None:
        self.network = network
        self.route = route
        self.clock = clock
        self.first = first
        self.second = second

    def call(self) -> RoutedCall:
        """A request that has not begun."""
        request = chat_pb2.ChatRequest(model="m")
        return RoutedCall(self.network, self.route, lambda worker: worker.chat, request, PATIENCE, (), single=False)

    async def text(self) -> str:
        """The text of an answer from whoever gives one. Raises `CallError`."""
        call = self.call()
        try:
            while True:
                try:
                    return await _whole(call)
                except CallError as error:
                    if not call.move_on(error):
                        raise
        finally:
            call.close()

    @property
    def resting(self) -> list[str]:
        """The workers of the targets that rest."""
        return [target.worker for target in self.network.breakers.resting()]


async def _whole(call: RoutedCall) -> str:
    texts: list[str] = []

    def take(found: chat_pb2.ChatResponse) -> bool:
        texts.extend(chunk.text for chunk in found.chunks)
        return True

    async with asyncio.timeout(PATIENCE):
        while not await call.pass_to(take):
            pass
    return "".join(texts)


@asynccontextmanager
async def routed(failures: int = 10, endpoint: dict[str, Any] | None = None, **limits: float) -> AsyncIterator[Routed]:
    """failures: after which a target rests for ten seconds. endpoint: more of the second worker's settings. limits: the
    route's, as `Route` has them."""
    async with AsyncExitStack() as stack:
        scripted, addresses = (Scripted(), Scripted()), []
        for each in scripted:
            server = Server()
            serialize = chat_pb2.ChatResponse.SerializeToString
            server.add({f"/{SERVICE}/Chat": Method(each.chat, chat_pb2.ChatRequest.FromString, serialize)})
            addresses.append(await server.listen("listen", "127.0.0.1:0"))
            stack.push_async_callback(server.stop, 0)
        listed = {"first": {"address": addresses[0]}, "second": {"address": addresses[1], **(endpoint or {})}}
        settings = msgspec.convert({"auth": "open", "workers": listed}, GatewaySettings)
        workers = {name: Worker(name, link) for name, link in read_links(settings).items()}
        for worker in workers.values():
            stack.push_async_callback(worker.close)
        clock = Clock()
        breakers = Breakers(BreakerSettings(failures=failures, rest=10), clock)
        route = Route("m", tuple(Target(worker=name, model="m") for name in workers), **limits)
        network = Network(workers, breakers, Budget(RetrySettings()))
        yield Routed(network, route, clock, *scripted)
