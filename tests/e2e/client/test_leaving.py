"""Who leaves a stream of trestle.client, in whichever way, ends the call."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import pytest
import pytest_asyncio
from support.direct import read
from support.upstream import PATIENCE, USAGE, Gate, Reply, ScriptedUpstream, chunk, sse

from trestle.client import Cancelled, Client, SyncClient, Usage, chat_request

pytestmark = pytest.mark.asyncio(loop_scope="session")

ASK = chat_request("scripted-model", "Hello?")
TOLD = Usage(input_tokens=USAGE["prompt_tokens"], output_tokens=USAGE["completion_tokens"])


@pytest.fixture
def silent(upstream: ScriptedUpstream) -> ScriptedUpstream:
    """Says one word and no more."""
    upstream.will(Reply.sse(sse(chunk({"content": "Hel"})), Gate()))
    return upstream


class TestLeaving:
    """Whoever leaves ends the upstream's work."""

    @pytest_asyncio.fixture(loop_scope="session")
    async def client(self, worker: str) -> AsyncIterator[Client]:
        async with Client(worker, timeout=PATIENCE) as client:
            yield client

    async def test_by_a_break(self, client: Client, silent: ScriptedUpstream) -> None:
        async for _ in client.chat(ASK):
            break
        await (await silent.request()).closed()

    async def test_by_a_break_from_a_stream_that_is_kept(self, client: Client, silent: ScriptedUpstream) -> None:
        stream = client.chat(ASK)
        async for _ in stream:
            break
        await (await silent.request()).closed()
        with pytest.raises(RuntimeError):
            _ = stream.answer

    async def test_by_an_exception(self, client: Client, silent: ScriptedUpstream) -> None:
        async def listen() -> None:
            async for each in client.chat(ASK):
                raise KeyError(each.text)

        with pytest.raises(KeyError):
            await listen()
        await (await silent.request()).closed()

    async def test_by_closing_the_stream(self, client: Client, silent: ScriptedUpstream) -> None:
        stream = client.chat(ASK)
        chunks = aiter(stream)
        await anext(chunks)
        await stream.aclose()
        await (await silent.request()).closed()
        with pytest.raises(Cancelled):
            await rest(chunks)

    async def test_by_leaving_its_context(self, client: Client, silent: ScriptedUpstream) -> None:
        async with client.chat(ASK) as stream:
            await anext(aiter(stream))
        await (await silent.request()).closed()

    async def test_by_cancelling_the_task(self, client: Client, silent: ScriptedUpstream) -> None:
        heard = asyncio.Event()

        async def listen() -> None:
            async for _ in client.chat(ASK):
                heard.set()

        task = asyncio.create_task(listen())
        await asyncio.wait_for(heard.wait(), PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await (await silent.request()).closed()

    async def test_by_cancelling_a_whole_answer(self, client: Client, silent: ScriptedUpstream) -> None:
        task = asyncio.create_task(client.complete(ASK))
        request = await silent.request()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await request.closed()

    async def test_by_a_timeout_of_asyncio(self, client: Client, silent: ScriptedUpstream) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await read(client.chat(ASK))
        await (await silent.request()).closed()

    async def test_by_dropping_what_was_never_read(self, client: Client, silent: ScriptedUpstream) -> None:
        stream = client.chat(ASK)
        request = await silent.request()
        del stream
        gc.collect()
        await request.closed()

    async def test_by_closing_the_client(self, worker: str, silent: ScriptedUpstream) -> None:
        """Who reads then is told so, and is not taken for cancelled."""
        client = Client(worker, timeout=PATIENCE)
        reading = asyncio.create_task(read(client.chat(ASK)))
        request = await silent.request()
        await client.close()
        chunks, raised = await reading
        assert isinstance(raised, Cancelled)
        assert len(chunks) <= 2
        await request.closed()


async def rest(chunks: AsyncIterator[Any]) -> None:
    async for _ in chunks:
        pass


class TestLeavingWithoutAsyncio:
    @pytest.fixture
    def client(self, worker: str) -> Iterator[SyncClient]:
        with SyncClient(worker, timeout=PATIENCE) as client:
            yield client

    async def test_by_a_break(self, client: SyncClient, silent: ScriptedUpstream) -> None:
        def listen() -> str:
            stream = client.chat(ASK)
            return next(each.text for each in stream if each.text)

        assert await asyncio.to_thread(listen) == "Hel"
        await (await silent.request()).closed()

    async def test_by_a_break_from_a_stream_that_is_kept(self, client: SyncClient, silent: ScriptedUpstream) -> None:
        stream = client.chat(ASK)

        def listen() -> None:
            for _ in stream:
                break

        await asyncio.to_thread(listen)
        await (await silent.request()).closed()

    async def test_by_closing_the_stream(self, client: SyncClient, silent: ScriptedUpstream) -> None:
        def listen() -> None:
            with client.chat(ASK) as stream:
                next(iter(stream))

        await asyncio.to_thread(listen)
        await (await silent.request()).closed()

    async def test_by_dropping_what_was_never_read(self, client: SyncClient, silent: ScriptedUpstream) -> None:
        stream = client.chat(ASK)
        request = await silent.request()
        del stream
        gc.collect()
        await request.closed()

    async def test_by_closing_the_stream_from_another_thread(
        self, client: SyncClient, silent: ScriptedUpstream
    ) -> None:
        stream = client.chat(ASK)
        reading = asyncio.create_task(asyncio.to_thread(list, stream))
        request = await silent.request()
        stream.close()
        with pytest.raises(Cancelled):
            await reading
        await request.closed()

    async def test_by_closing_the_client(self, worker: str, silent: ScriptedUpstream) -> None:
        client = SyncClient(worker, timeout=PATIENCE)
        reading = asyncio.create_task(asyncio.to_thread(client.complete, ASK))
        request = await silent.request()
        client.close()
        with pytest.raises(Cancelled):
            await reading
        await request.closed()
