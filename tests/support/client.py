"""A client that takes nothing for granted: it reads the gateway's answers byte by byte and holds them to the letter of
what we promise (`data: ` with its blank, LF, one line per event, events whole)."""

from __future__ import annotations

import asyncio
import io
import json
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from support import schemas
from support.upstream import PATIENCE
from yarl import URL

MESSAGES = [{"role": "user", "content": "Hello?"}]


@dataclass
class Answer:
    """An answer in one piece."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        assert self.headers["content-type"].startswith("application/json")
        return json.loads(self.body)

    def error(self, *beside: str) -> dict[str, Any]:
        """The error object, which has its four members and no other but those of the upstream's own."""
        found: dict[str, Any] = self.json["error"]
        assert_error_object(self.json, *beside)
        return found


def assert_error_object(value: dict[str, Any], *beside: str) -> None:
    """The form that every error has, as a body and as an event. beside: names of the upstream's own members."""
    assert set(value) == {"error"}
    assert set(value["error"]) == {"message", "type", "param", "code", *beside}
    schemas.assert_valid(value, schemas.ERROR)


@dataclass
class Stream:
    """A streamed answer, read to its end. done: [DONE] came. error: the error event's object, if one came."""

    status: int
    headers: Mapping[str, str]
    chunks: list[dict[str, Any]] = field(default_factory=list)
    comments: int = 0
    done: bool = False
    error: dict[str, Any] | None = None

    def text(self, index: int = 0) -> str:
        """The visible text of a choice."""
        return "".join(delta.get("content") or "" for delta in self.deltas(index))

    def deltas(self, index: int = 0) -> list[dict[str, Any]]:
        """The deltas of a choice, in order."""
        return [choice["delta"] for choice in self.choices(index)]

    def choices(self, index: int = 0) -> list[dict[str, Any]]:
        """The pieces of a choice, in order."""
        return [choice for chunk in self.chunks for choice in chunk["choices"] if choice["index"] == index]

    def message(self) -> tuple[dict[str, Any], str]:
        """The first choice's message and finish, as a reader of OpenAI's streams puts them together."""
        said: dict[str, Any] = {"content": "", "reasoning_content": ""}
        calls: dict[int, dict[str, Any]] = {}
        for delta in self.deltas():
            for name in said:
                said[name] += delta.get(name) or ""
            for piece in delta.get("tool_calls") or ():
                call = calls.setdefault(piece["index"], {**piece, "function": {**piece["function"], "arguments": ""}})
                call["function"]["arguments"] += piece["function"]["arguments"]
        (finish,) = (choice["finish_reason"] for choice in self.choices() if choice["finish_reason"] is not None)
        return {**said, "tool_calls": list(calls.values())}, finish

    def take(self, event: str) -> None:
        """The next event, without its blank line."""
        assert not self.done, f"{event!r} after [DONE]"
        assert self.error is None, f"{event!r} after an error"
        if event.startswith(":"):
            self.comments += 1
            return
        assert event.startswith("data: "), event
        assert "\n" not in event, event
        assert "\r" not in event, event
        data = event.removeprefix("data: ")
        if data == "[DONE]":
            self.done = True
            return
        value = json.loads(data)
        if "error" in value:
            assert_error_object(value)
            self.error = value["error"]
        else:
            self.chunks.append(value)


class OpenStream:
    """A streamed answer that is still coming."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._buffer = b""
        self.seen = Stream(response.status, response.headers)

    async def event(self) -> str | None:
        """The next event's text, also taken into `seen`; None at the answer's end, which never cuts one in two."""
        while b"\n\n" not in self._buffer:
            async with asyncio.timeout(PATIENCE):
                data = await self._response.content.readany()
            if not data:
                assert not self._buffer, f"the answer ended inside an event: {self._buffer!r}"
                return None
            self._buffer += data
        event, _, self._buffer = self._buffer.partition(b"\n\n")
        text = event.decode()
        self.seen.take(text)
        return text

    async def text(self, wanted: str) -> None:
        """Reads until so much text has come."""
        while self.seen.text() != wanted:
            assert await self.event() is not None, f"the answer ended with {self.seen.text()!r}"
            assert wanted.startswith(self.seen.text())

    async def rest_of_text(self) -> int:
        """Reads to the end; returns how many characters of text came, for answers too large to keep."""
        known = len(self.seen.chunks)
        size = 0
        while await self.event() is not None:
            for chunk in self.seen.chunks[known:]:
                size += sum(len(choice["delta"].get("content") or "") for choice in chunk["choices"])
            del self.seen.chunks[known:]
        return size

    async def rest(self) -> Stream:
        """Reads to the end."""
        while await self.event() is not None:
            pass
        return self.seen

    def hang_up(self) -> None:
        """Closes the connection, as a client does that is gone."""
        self._response.close()


class Client:
    """Speaks to one gateway. Use as an async context manager. headers: sent with each request. context: of TLS; None:
    in the clear."""

    def __init__(
        self, address: str, headers: Mapping[str, str] | None = None, context: ssl.SSLContext | None = None
    ) -> None:
        connector = None if context is None else aiohttp.TCPConnector(ssl=context)
        url = f"{'http' if context is None else 'https'}://{address}"
        self._session = aiohttp.ClientSession(url, headers=headers, read_bufsize=16 * 1024, connector=connector)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._session.close()

    async def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """One request and its whole answer; headers: with `_` for `-`. The path is sent as it stands."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        if body is not None:
            named.setdefault("content-type", "application/json")
        async with asyncio.timeout(PATIENCE):
            data = None if body is None else io.BytesIO(body)  # bytes as they are make aiohttp warn of large ones
            async with self._session.request(method, _as_is(path), data=data, headers=named) as response:
                return Answer(response.status, response.headers, await response.read())

    async def upload(self, path: str, pieces: Iterable[bytes]) -> Answer:
        """One POST whose body's length is not said beforehand, and its whole answer."""

        async def body() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        async with asyncio.timeout(PATIENCE):
            async with self._session.post(path, data=body()) as response:
                return Answer(response.status, response.headers, await response.read())

    async def chat(self, request: Mapping[str, Any], **headers: str) -> Answer:
        """A chat completion in one piece."""
        return await self.ask("POST", "/v1/chat/completions", json.dumps(request).encode(), **headers)

    async def stream(self, request: Mapping[str, Any], **headers: str) -> Stream:
        """A streamed chat completion, read to its end."""
        async with self.open(request, **headers) as answer:
            return await answer.rest()

    @asynccontextmanager
    async def open(self, request: Mapping[str, Any], **headers: str) -> AsyncIterator[OpenStream]:
        """A streamed chat completion, from its headers on."""
        body = io.BytesIO(json.dumps({**request, "stream": True}).encode())
        named = {"content-type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
        async with self._session.post("/v1/chat/completions", data=body, headers=named) as response:
            assert response.status == 200, await response.text()
            assert response.content_type == "text/event-stream"
            yield OpenStream(response)


def _as_is(path: str) -> URL:
    """A path that no client library may tidy up."""
    return URL(path, encoded=True)


def ask(model: str = "scripted", **members: Any) -> dict[str, Any]:
    """A small request."""
    return {"model": model, "messages": MESSAGES, **members}
