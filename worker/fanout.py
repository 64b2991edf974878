"""Several calls, one answer (WIRE "Families"): n choices from an upstream that makes one at a time, by as many calls
side by side, and embeddings of more inputs than it takes at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final

from trestle.errors import CallError
from trestle.v1 import chat_pb2, embedding_pb2
from worker.out import Out

Responses = Out[chat_pb2.ChatResponse]
Answer = Callable[[chat_pb2.ChatRequest, Responses], Coroutine[Any, Any, None]]

_COUNTS: Final = tuple(
    field for field in chat_pb2.Usage.DESCRIPTOR.fields if field.cpp_type == field.CPPTYPE_UINT64
)


def total_usage(usages: Iterable[chat_pb2.Usage]) -> chat_pb2.Usage | None:
    """The sum of all; None of none."""
    total: chat_pb2.Usage | None = None
    for usage in usages:
        if total is None:
            total = chat_pb2.Usage()
            total.CopyFrom(usage)  # what is not a number stays as the first said it
            continue
        total.estimated = total.estimated or usage.estimated
        for count in _COUNTS:
            if not count.has_presence or usage.HasField(count.name):  # type: ignore[arg-type]
                setattr(total, count.name, getattr(total, count.name) + getattr(usage, count.name))
    return total


def join(answers: Sequence[embedding_pb2.EmbedResponse]) -> embedding_pb2.EmbedResponse:
    """The vectors of all, in order, and the usage of all."""
    whole = answers[0]
    usage = total_usage(each.usage for each in answers)
    for each in answers[1:]:
        whole.embeddings.extend(each.embeddings)
    assert usage is not None
    whole.usage.CopyFrom(usage)
    return whole


async def fan_out(request: chat_pb2.ChatRequest, answer: Answer, out: Responses) -> chat_pb2.Usage | None:
    """Calls `answer` for each of the request's n choices and merges what they send: choices numbered, one started,
    usage summed, and returned. The first failure ends the rest and is raised, with the usage of all."""
    merge = _Merge(request.sampling.n, out)

    async def one(choice: int) -> None:
        part = _Part(merge, choice)
        await answer(_single(request, choice), part)
        await merge.room()
        merge.end(part.last, choice)

    try:
        async with asyncio.TaskGroup() as group:
            for choice in range(request.sampling.n):
                group.create_task(one(choice))
    except BaseExceptionGroup as failures:
        failure = failures.exceptions[0]
        if isinstance(failure, CallError):
            merge.take_usage(failures.exceptions)
            failure.usage = merge.usage()
        raise failure from None
    return merge.usage()


def _single(request: chat_pb2.ChatRequest, choice: int) -> chat_pb2.ChatRequest:
    """The request for one of its choices. With a seed each has its own, or all would be the same answer."""
    single = chat_pb2.ChatRequest()
    single.CopyFrom(request)
    single.sampling.ClearField("n")
    if single.sampling.HasField("seed"):
        single.sampling.seed += choice
    return single


class _Part(Responses):
    """One choice's way into the merge."""

    __slots__ = ("_choice", "_merge")

    def __init__(self, merge: _Merge, choice: int) -> None:
        super().__init__(chat_pb2.ChatResponse(), None)
        self._merge = merge
        self._choice = choice

    def put(self, response: chat_pb2.ChatResponse) -> bool:
        """As the one response of all choices."""
        return self._merge.put(response, self._choice)

    async def room(self) -> None:
        await self._merge.room()


class _Merge:
    def __init__(self, n: int, out: Responses) -> None:
        self._out = out
        self._open = n
        self._turn = asyncio.Lock()
        self._started = False
        self._usages: list[chat_pb2.Usage | None] = [None] * n

    def put(self, response: chat_pb2.ChatResponse, choice: int) -> bool:
        merged = self._merged(response, choice)
        return self._out.put(merged) if merged.chunks else True

    async def room(self) -> None:
        """One choice after the other waits: a call has one waiter."""
        async with self._turn:
            await self._out.room()

    def end(self, response: chat_pb2.ChatResponse, choice: int) -> None:
        """A choice's last response."""
        self._open -= 1
        merged = self._merged(response, choice)
        if not self._open:
            self._out.finish(merged)
        elif merged.chunks:
            self._out.put(merged)

    def _merged(self, response: chat_pb2.ChatResponse, choice: int) -> chat_pb2.ChatResponse:
        merged = chat_pb2.ChatResponse()
        for chunk in response.chunks:
            self._take(chunk, choice, merged)
        return merged

    def _take(self, chunk: chat_pb2.ChatChunk, choice: int, merged: chat_pb2.ChatResponse) -> None:
        event = chunk.WhichOneof("event")
        if event == "started":
            if self._started:
                return
            self._started = True
        elif event == "usage":
            told = self._usages[choice] = chat_pb2.Usage()
            told.CopyFrom(chunk.usage)  # which becomes that of all
            total = self.usage()
            assert total is not None
            chunk.usage.CopyFrom(total)
        chunk.choice = choice
        merged.chunks.append(chunk)

    def take_usage(self, failures: Iterable[BaseException]) -> None:
        """Of calls that failed before they could send it. A call that had sent some has it counted already."""
        for failure in failures:
            if isinstance(failure, CallError) and failure.usage is not None and failure.usage not in self._usages:
                self._usages.append(failure.usage)

    def usage(self) -> chat_pb2.Usage | None:
        """The sum of what is known; None while nothing is."""
        return total_usage(usage for usage in self._usages if usage is not None)
