"""A worker of one family in this process, with two scripted upstreams, called over gRPC; what its calls counted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import msgspec
import pytest
from support.upstream import PATIENCE, ScriptedUpstream

from trestle.errors import DETAILS_KEY, CallError
from trestle.rpc.server import Server
from trestle.v1 import chat_pb2, worker_service_pb2_grpc
from worker import registry
from worker.calls import CallMetadata, Calls
from worker.family import Upstream
from worker.methods import methods
from worker.service import RemoteService
from worker.upstream import UpstreamClient

SECRET: Final = "sk-5ecre7"
HELLO: Final = chat_pb2.Message(role=chat_pb2.ROLE_USER, text="Hello?")


@dataclass
class Ended:
    """An observer that keeps what it is told of."""

    calls: list[CallMetadata] = field(default_factory=list)

    def ended(self, call: CallMetadata, seconds: float) -> None:
        self.calls.append(call)


@dataclass
class Bench:
    """upstream: the first of two, `u`; the other one is `v`."""

    upstream: ScriptedUpstream
    other: ScriptedUpstream
    worker: Any
    ended: Ended

    async def chat(
        self, stream: bool = True, metadata: Mapping[str, str] | None = None
    ) -> tuple[list[chat_pb2.ChatChunk], CallError | None]:
        """What came, and how it failed."""
        request = chat_pb2.ChatRequest(model="m", messages=[HELLO], stream=stream)
        call = self.worker.Chat(request, timeout=PATIENCE, metadata=tuple((metadata or {}).items()))
        chunks: list[chat_pb2.ChatChunk] = []
        try:
            async for response in call:
                chunks += response.chunks
        except grpc.aio.AioRpcError as error:
            return chunks, _told(error)
        return chunks, None

    async def failure(self, **options: Any) -> CallError:
        """Of a call that must fail."""
        _, error = await self.chat(**options)
        assert error is not None
        return error

    async def refused(self, request: Any, *metadata: tuple[str, str]) -> CallError:
        """How a call fails that asks for this."""
        method = getattr(self.worker, request.DESCRIPTOR.name.removesuffix("Request"))
        call = method(request, timeout=PATIENCE, metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (call.read() if isinstance(call, grpc.aio.UnaryStreamCall) else call)
        return _told(caught.value)

    def counted(self) -> tuple[int, int] | None:
        """The tokens of the last call, as it is counted."""
        usage = self.ended.calls[-1].usage
        return None if usage is None else (usage.input_tokens, usage.output_tokens)


def _told(error: grpc.aio.AioRpcError) -> CallError:
    details: Any = dict(error.trailing_metadata() or ()).get(DETAILS_KEY)
    return CallError.from_status(error.code().value[0], error.details() or "", details)


@asynccontextmanager
async def bench(name: str = "openai", **settings: Any) -> AsyncIterator[Bench]:
    """A worker of the family in this process, with `settings` of its upstreams."""
    family: Any = registry.family(name)
    async with ScriptedUpstream() as upstream, ScriptedUpstream() as other:
        clients = {}
        for called, each in (("u", upstream), ("v", other)):
            made = msgspec.convert({"base_url": each.url, "retries": 0, **settings}, family.upstream_type)
            clients[called] = UpstreamClient(Upstream(called, made, SECRET))
        calls = Calls()
        calls.observer = ended = Ended()
        server = Server()
        server.add(methods(RemoteService(family, clients, calls)))
        address = await server.listen("listen", "127.0.0.1:0")
        try:
            # Without it the client takes megabytes that nobody reads.
            options = [("grpc.http2.bdp_probe", 0)]
            async with grpc.aio.insecure_channel(address, options=options) as channel:
                yield Bench(upstream, other, worker_service_pb2_grpc.WorkerServiceStub(channel), ended)
        finally:
            await server.stop(0.0)
            for client in clients.values():
                await client.close()
