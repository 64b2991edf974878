"""Both clients of trestle.client in one form, so that one test can ask them the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from trestle.client import ChatStream, Client, SyncClient

Connect: TypeAlias = Callable[..., Any]
"""`Client` or `Threaded`: target and options to an asynchronous context manager."""


class ThreadedStream:
    """A `SyncStream` whose every step is made in a thread."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncGenerator[Any, None]:
        chunks = iter(self._stream)
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            yield chunk

    @property
    def answer(self) -> Any:
        """As the stream has it."""
        return self._stream.answer

    @property
    def usage(self) -> Any:
        """As the stream has it."""
        return self._stream.usage

    async def ignored_params(self) -> Any:
        """As the stream has them."""
        return await asyncio.to_thread(self._stream.ignored_params)

    async def aclose(self) -> None:
        """Closes the stream."""
        self._stream.close()


class Threaded:
    """`SyncClient` in the form of `Client`."""

    def __init__(self, target: str, **options: Any) -> None:
        self._client = SyncClient(target, **options)

    def chat(self, request: Any, **options: Any) -> Any:
        """A stream."""
        return ThreadedStream(self._client.chat(request, **options))

    def text(self, request: Any, **options: Any) -> Any:
        """A stream."""
        return ThreadedStream(self._client.text(request, **options))

    def __getattr__(self, name: str) -> Any:
        """The methods that return an answer."""
        method = getattr(self._client, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            return await asyncio.to_thread(method, *arguments, **options)

        return call

    async def __aenter__(self) -> Threaded:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._client.close()


async def read(stream: ChatStream | Any) -> tuple[list[Any], Exception | None]:
    """All chunks, and what was raised after them."""
    chunks = []
    try:
        async for chunk in stream:
            chunks.append(chunk)  # noqa: PERF401 (what came before a failure must be kept)
    except Exception as error:  # noqa: BLE001 (the test says which it must be)
        return chunks, error
    return chunks, None


@asynccontextmanager
async def connected(connect: Connect, target: str, **options: Any) -> AsyncIterator[Client]:
    """A client of this kind; the sync one is typed as if it were the other."""
    async with connect(target, **options) as client:
        yield client
