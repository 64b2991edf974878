"""A worker's configuration read anew while it serves."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support import services
from support.services import Service
from support.upstream import Gate, Reply, ScriptedUpstream, completion, text_stream

from trestle.client import Client, InvalidRequest, Unauthenticated, Unavailable
from trestle.v1 import chat_pb2


class House:
    """A worker `served`, whose settings `write` changes, and two upstreams."""

    def __init__(self, served: Service, file: Path, first: ScriptedUpstream, second: ScriptedUpstream) -> None:
        self.served = served
        self.first = first
        self.second = second
        self._file = file

    def settings(self, *upstreams: str, **changed: Any) -> dict[str, Any]:
        known = {"first": self.first.url, "second": self.second.url}
        named = {name: {"base_url": known[name], "retries": 0, "models": [name]} for name in upstreams or ("first",)}
        return {"openai": {"upstreams": named}, **changed}

    def write(self, settings: dict[str, Any]) -> None:
        """As an editor does: a new file in the place of the old."""
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps({"worker": settings}), encoding="utf-8")
        new.replace(self._file)

    async def change(self, settings: dict[str, Any]) -> None:
        self.write(settings)
        await self.served.logged("read anew")


@asynccontextmanager
async def house(folder: Path, environment: dict[str, str] | None = None, **settings: Any) -> AsyncIterator[House]:
    async with ScriptedUpstream() as first, ScriptedUpstream() as second:
        begin = {"openai": {"upstreams": {"first": {"base_url": first.url, "retries": 0, "models": ["first"]}}}}
        options: dict[str, Any] = {"config": {"worker": {**begin, **settings}}, "folder": folder}
        async with services.running("worker", "worker", "openai", environment=environment, **options) as served:
            yield House(served, folder / "worker.yaml", first, second)


def ask(upstream: str = "", *, stream: bool = False) -> chat_pb2.ChatRequest:
    message = chat_pb2.Message(role=chat_pb2.ROLE_USER, text="Hi?")
    return chat_pb2.ChatRequest(model="m", upstream=upstream, stream=stream, messages=[message])


async def models(client: Client) -> list[str]:
    return [model.id for model in await client.models()]


async def test_upstreams_come_and_go_and_an_open_stream_goes_on(tmp_path: Path) -> None:
    async with house(tmp_path) as it, Client(it.served.address) as client:
        gate = Gate()
        role, one, *rest = text_stream(["one", " two"])
        it.first.will(Reply.sse(role, one, gate, *rest))
        stream = client.chat(ask(stream=True))
        chunks = aiter(stream)
        await anext(chunks)
        await it.change(it.settings("second"))
        assert await models(client) == ["second"]
        it.second.will(Reply.json(completion("Hi.")))
        assert (await client.complete(ask())).choices[0].text == "Hi."
        with pytest.raises(InvalidRequest, match="no upstream named 'first'"):
            await client.complete(ask("first"))
        gate.set()
        async for _ in chunks:
            pass
        assert stream.answer.choices[0].text == "one two"


async def test_a_file_that_is_wrong_is_refused_and_the_next_one_counts(tmp_path: Path) -> None:
    async with house(tmp_path) as it, Client(it.served.address) as client:
        for wrong, word in (
            (it.settings(max_cals=1), "worker.max_cals: is not a known key"),
            ({"openai": {"upstreams": {}}}, "worker.openai.upstreams: the openai family needs at least one"),
            (it.settings(seal_key_envs=["NOT_SET_ANYWHERE"]), "NOT_SET_ANYWHERE"),
        ):
            it.write(wrong)
            assert word in await it.served.logged("refused")
            assert await models(client) == ["first"]
        await it.change(it.settings("first", "second"))
        assert await models(client) == ["first", "second"]


async def test_a_signal_and_a_swapped_link_are_heard(tmp_path: Path) -> None:
    async with house(tmp_path) as it, Client(it.served.address) as client:
        os.kill(it.served.process.pid, signal.SIGHUP)
        await it.served.logged("read anew")
        file = tmp_path / "worker.yaml"
        for name in ("second", "first"):  # as Kubernetes changes what it mounts from a ConfigMap
            version = tmp_path / f"..{name}"
            version.mkdir()
            (version / "worker.yaml").write_text(json.dumps({"worker": it.settings(name)}), encoding="utf-8")
            link = tmp_path / "..new"
            link.symlink_to(version.name)
            link.replace(tmp_path / "..data")
            if not file.is_symlink():
                (tmp_path / "link").symlink_to("..data/worker.yaml")
                (tmp_path / "link").replace(file)
            await it.served.logged("read anew")
            assert await models(client) == [name]


async def test_callers_and_limits_change_and_what_cannot_is_named(tmp_path: Path) -> None:
    callers = [{"name": "one", "token_envs": ["ONE"]}]
    environment = {"ONE": "token-one", "TWO": "token-two"}
    async with house(tmp_path, environment, callers=callers) as it:
        address = it.served.address
        async with Client(address, token="token-one") as one, Client(address, token="token-two", retries=0) as two:
            assert await models(one) == ["first"]
            others = [{"name": "two", "token_envs": ["TWO"]}]
            it.write(it.settings(callers=others, max_calls=1, max_message_bytes=1024))
            log = await it.served.logged("read anew")
            assert "worker.max_message_bytes: the new value counts from the next start" in log
            assert await models(two) == ["first"]
            with pytest.raises(Unauthenticated, match="token"):
                await one.models()
            gate = Gate()
            it.first.will(Reply.sse(*text_stream(["one"])[:2], gate))
            stream = two.chat(ask(stream=True))
            chunks = aiter(stream)
            await anext(chunks)
            with pytest.raises(Unavailable, match="as many calls as it may"):
                await two.complete(ask())
            gate.set()
            await stream.aclose()
