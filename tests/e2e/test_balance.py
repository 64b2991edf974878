"""One name, several replicas: who is asked, as they come and go. Real name resolution, real processes."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from support import services
from support.client import Client, ask
from support.dns import HOSTS, NameServer
from support.ports import free_port
from support.services import Service
from support.upstream import PATIENCE

from trestle.v1 import chat_pb2, worker_service_pb2_grpc

STALLS: Final = "echo?fault=stall&after=1"
_CALL: Final = re.compile(r"call caller=edge .*method=Chat(?:.* session=(\S+))?")


class Replica:
    """One of the workers behind the name. host: its address. asked: its calls by session, as far as its log says."""

    def __init__(self, host: str, service: Service) -> None:
        self.host = host
        self.service = service
        self.asked: Counter[str] = Counter()

    def read(self) -> None:
        """Brings `asked` up to date."""
        self.asked.update(_CALL.findall(self.service.new_log()))


class House:
    """A gateway before workers that a name server knows. replicas: those that were started, by host."""

    def __init__(self, folder: Path, stack: AsyncExitStack, names: NameServer, **settings: Any) -> None:
        self.replicas: dict[str, Replica] = {}
        self.port = free_port(HOSTS)
        self._folder = folder
        self._stack = stack
        self._names = names
        self._settings = settings
        self.client: Client

    async def add(self, host: str) -> Replica:
        """Starts one more, and has the name lead to it as well. It says in its log whom it answers."""
        folder = self._folder / host
        folder.mkdir()
        callers = [{"name": "edge", "token_envs": ["TOKEN"], "gateway": True}]
        service = await self._stack.enter_async_context(
            services.worker(
                "echo",
                folder,
                environment={"TOKEN": "t"},
                listen=f"{host}:{self.port}",
                settings={"callers": callers, "log_calls": "all", **self._settings},
            )
        )
        replica = self.replicas[host] = Replica(host, service)
        self._names.addresses.append(host)
        return replica

    async def serve(self, **endpoint: Any) -> None:
        """Starts the gateway. endpoint: what is said of the worker beside its address."""
        target = {"address": self._names.target(self.port), "token_env": "TOKEN", **endpoint}
        gateway = await self._stack.enter_async_context(
            services.gateway({"workers": {"w": target}}, self._folder, environment={"TOKEN": "t"})
        )
        self.client = await self._stack.enter_async_context(Client(gateway.address))

    async def ask(self, times: int = 1, session: str = "-") -> Counter[str]:
        """Asks so often; returns how often each replica was asked."""
        before = self._asked()
        for _ in range(times):
            answer = await self.client.chat(ask("echo"), x_session_id=session)
            assert answer.status == 200, answer.body
        new = self._asked() - before
        async with asyncio.timeout(PATIENCE):
            while new.total() < times:  # the log comes a little after the answer
                await asyncio.sleep(0.01)
                new = self._asked() - before
        return new

    def _asked(self) -> Counter[str]:
        for replica in self.replicas.values():
            replica.read()
        return Counter({host: replica.asked.total() for host, replica in self.replicas.items()})


@asynccontextmanager
async def house(folder: Path, *hosts: str, **settings: Any) -> AsyncIterator[House]:
    """With replicas at these; settings: of each."""
    async with NameServer() as names, AsyncExitStack() as stack:
        it = House(folder, stack, names, **settings)
        for host in hosts:
            await it.add(host)
        yield it


async def test_each_in_turn(tmp_path: Path) -> None:
    async with house(tmp_path, *HOSTS) as it:
        await it.serve()
        await until_all_are_asked(it)
        asked = await it.ask(12)
        # 4 each, but for a list of models in between.
        assert all(3 <= asked[host] <= 5 for host in HOSTS), asked


async def until_all_are_asked(it: House) -> None:
    """Connections are made one by one; a call goes to whom there is one to."""
    async with asyncio.timeout(PATIENCE):
        seen: set[str] = set()
        while seen != set(it.replicas):
            seen |= set(+await it.ask())


async def test_a_new_replica_is_asked_once_a_connection_has_had_its_time(tmp_path: Path) -> None:
    """No call fails over it."""
    async with house(tmp_path, *HOSTS[:2], max_connection_age=1) as it:
        await it.serve(resolve_interval=0.5)
        await until_all_are_asked(it)
        await it.add(HOSTS[2])
        await until_all_are_asked(it)


async def test_a_dead_replica_is_asked_no_more(tmp_path: Path) -> None:
    async with house(tmp_path, *HOSTS[:2]) as it:
        await it.serve()
        await until_all_are_asked(it)
        async with AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(it.client.open(ask(STALLS))) for _ in range(4)]
            streams = [asyncio.create_task(stream.rest()) for stream in opened]
            await it.replicas[HOSTS[0]].service.kill()
            # The end of its streams says that the gateway knows.
            async with asyncio.timeout(PATIENCE):
                ended, left = await asyncio.wait(streams, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                assert task.result().error is not None
                assert not task.result().done
            assert +await it.ask(10) == {HOSTS[1]: 10}
            for task in left:
                task.cancel()


async def test_a_session_keeps_its_replica(tmp_path: Path) -> None:
    async with house(tmp_path, *HOSTS) as it:
        await it.serve(balance="session")
        sessions = [f"session-{i}" for i in range(12)]
        homes: dict[str, str] = {}
        for session in sessions:
            asked = +await it.ask(3, session)
            assert len(asked) == 1, (session, asked)
            (homes[session],) = asked
        assert len(set(homes.values())) > 1
        # The sessions of one that is gone find another one; nobody else moves.
        gone = homes[sessions[0]]
        await it.replicas[gone].service.kill()
        async with asyncio.timeout(PATIENCE):
            while (await it.client.chat(ask("echo"), x_session_id=sessions[0])).status != 200:
                pass
        for session, home in homes.items():
            asked = +await it.ask(2, session)
            assert asked == {home: 2} if home != gone else gone not in asked


async def test_who_has_more_to_do_is_asked_less(tmp_path: Path) -> None:
    async with house(tmp_path, *HOSTS[:2]) as it:
        await it.serve(balance="load")
        busy = it.replicas[HOSTS[0]]
        async with grpc.aio.insecure_channel(busy.service.address) as channel:
            stub: Any = worker_service_pb2_grpc.WorkerServiceStub(channel)
            message = chat_pb2.Message(role=chat_pb2.ROLE_USER, text="Hello?")
            request = chat_pb2.ChatRequest(model=STALLS, messages=[message], stream=True)
            held = [stub.Chat(request, metadata=(("authorization", "Bearer t"),)) for _ in range(30)]
            for call in held:
                await anext(aiter(call))
            async with asyncio.timeout(PATIENCE):
                while (await it.ask(20))[busy.host] > 4:
                    pass
            for call in held:
                call.cancel()
            async with asyncio.timeout(PATIENCE):
                while (await it.ask(20))[busy.host] < 8:
                    pass


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ({"balance": "random"}, "gateway.workers.w.balance"),
        ({"resolve_interval": 0}, "gateway.workers.w.resolve_interval"),
    ],
)
async def test_what_cannot_be_is_said(tmp_path: Path, endpoint: dict[str, Any], words: str) -> None:
    config = {"gateway": {"auth": "open", "workers": {"w": {"address": "a:1", **endpoint}}}}
    with pytest.raises(AssertionError, match=words):
        await services.start("wrong", "gateway", config=config, folder=tmp_path)
