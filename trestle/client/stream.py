"""Streamed answers, as they are read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import grpc

from trestle.client.errors import closed, failure
from trestle.client.link import ignored_params
from trestle.errors import CallError
from trestle.v1 import chat_pb2

C = TypeVar("C")
A = TypeVar("A")


class Fold(Protocol):
    """What chunks are fed to."""

    usage: chat_pb2.Usage | None

    def feed(self, chunks: Any, /) -> None:
        """Takes the next chunks."""


F = TypeVar("F", bound=Fold)


class Reading(Generic[C, A]):
    """A streamed answer on its way. C: its chunks; A: what they are together. answer: makes that of the fold and of the
    parameters that were ignored, or raises `Truncated`."""

    def __init__(self, call: Any, fold: F, answer: Callable[[F, Sequence[str]], A]) -> None:
        self._call = call
        self._fold = fold
        self._make: Callable[[Any, Sequence[str]], A] = answer
        self._begun = False
        self._answer: A | None = None

    @property
    def usage(self) -> chat_pb2.Usage | None:
        """The tokens used so far, as far as the worker has told."""
        return self._fold.usage

    @property
    def answer(self) -> A:
        """All of it, once it has ended well. Raises RuntimeError before that."""
        if self._answer is None:
            raise RuntimeError("the answer has not come to its end")
        return self._answer

    def _begin(self) -> None:
        if self._begun:
            raise RuntimeError("an answer can be read once")
        self._begun = True

    def _end(self, initial_metadata: Any) -> None:
        self._answer = self._make(self._fold, ignored_params(initial_metadata))

    def _with_usage(self, error: CallError) -> CallError:
        error.usage = error.usage or self._fold.usage
        return error


class Stream(Reading[C, A]):
    """A streamed answer: `async for chunk in stream`, once. The loop ends only when the answer has ended well; all else
    raises `CallError`, with the usage so far.

    Leaving the loop early ends the call, and with it the upstream's work; so do `aclose`, the end of `async with
    stream`, the cancellation of the task that reads, and dropping the stream unread.
    """

    def __init__(self, call: Any, fold: F, answer: Callable[[F, Sequence[str]], A]) -> None:
        super().__init__(call, fold, answer)
        self._loop = asyncio.get_running_loop()

    def __del__(self) -> None:
        # One that nobody has read: gRPC itself keeps a call for as long as it runs. Any thread may collect garbage.
        if not self._call.done() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._call.cancel)

    async def __aiter__(self) -> AsyncGenerator[C, None]:
        self._begin()
        try:
            async for response in self._call:
                self._fold.feed(response.chunks)
                for chunk in response.chunks:
                    yield chunk
            self._end(await self._call.initial_metadata())
        except grpc.aio.AioRpcError as error:
            raise self._with_usage(failure(error)) from None
        except asyncio.CancelledError:
            raise_if_closed(self._with_usage(closed()))
            raise
        finally:
            self._call.cancel()

    async def ignored_params(self) -> Sequence[str]:
        """The parameters that the family does not honour, known with the answer's first words."""
        return ignored_params(await self._call.initial_metadata())

    async def aclose(self) -> None:
        """Ends the call if it still runs."""
        self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class SyncStream(Reading[C, A]):
    """`Stream` without asyncio: `for chunk in stream`, once. Leaving the loop early, `close` and the end of
    `with stream` end the call."""

    def __iter__(self) -> Generator[C, None, None]:
        self._begin()
        try:
            for response in self._call:
                self._fold.feed(response.chunks)
                yield from response.chunks
            self._end(self._call.initial_metadata())
        except grpc.RpcError as error:
            raise self._with_usage(failure(error)) from None
        finally:
            self._call.cancel()

    def ignored_params(self) -> Sequence[str]:
        """The parameters that the family does not honour, known with the answer's first words."""
        return ignored_params(self._call.initial_metadata())

    def close(self) -> None:
        """Ends the call if it still runs."""
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def raise_if_closed(error: CallError) -> None:
    """Of a CancelledError: raises `error` instead unless it is this task that is cancelled."""
    task = asyncio.current_task()
    if task is not None and not task.cancelling():
        raise error from None
