"""What stands around every call."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import grpc
import msgspec
from support.upstream import PATIENCE, Reply, ScriptedUpstream, completion

from trestle.rpc.server import Server
from trestle.v1 import chat_pb2, worker_service_pb2_grpc
from worker import registry
from worker.calls import CallMetadata, Calls
from worker.family import Upstream
from worker.methods import methods
from worker.service import RemoteService
from worker.upstream import UpstreamClient


async def test_a_connection_that_stays_open_keeps_nothing_of_the_call_it_was_made_for() -> None:
    """It keeps the context of who made it, and what stands in there."""
    family: Any = registry.family("openai")
    async with ScriptedUpstream() as upstream:
        settings = msgspec.convert({"base_url": upstream.url}, family.upstream_type)
        client = UpstreamClient(Upstream("u", settings, ""))
        calls = Calls()
        server = Server()
        server.add(methods(RemoteService(family, {"u": client}, calls)))
        address = await server.listen("listen", "127.0.0.1:0")
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = worker_service_pb2_grpc.WorkerServiceStub(channel)
            message = chat_pb2.Message(role=chat_pb2.ROLE_USER, text="Hello?")
            request = chat_pb2.ChatRequest(model="m", messages=[message])
            for _ in range(2):
                upstream.will(Reply.json(completion("Hi.")))
                assert len([each async for each in stub.Chat(request)]) == 1
        await server.stop(PATIENCE)
        async with asyncio.timeout(PATIENCE):
            while left := [each for each in gc.get_objects() if isinstance(each, CallMetadata)]:
                del left
                gc.collect()
                await asyncio.sleep(0.01)
        assert not upstream.requests[0].lost.is_set()
        await client.close()
