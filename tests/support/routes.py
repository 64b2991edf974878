"""Two upstreams behind one route, each told what to answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from support import services
from support.client import Client, ask
from support.services import Service
from support.upstream import Gate, Reply, ScriptedUpstream, chunk, completion, sse, text_stream

both_ways = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
BUSY: Final = Reply.json({"error": {"message": "Busy.", "type": "server_error"}}, 503)


class Two:
    """Two upstreams, their worker, and a client of the gateway before it; address: the gateway's."""

    def __init__(
        self, client: Client, gateway: Service, worker: Service, first: ScriptedUpstream, second: ScriptedUpstream
    ) -> None:
        self.client = client
        self.gateway = gateway
        self.worker = worker
        self.address = gateway.address
        self.first = first
        self.second = second
        self.attempts = ""  # of the last good answer, as it says itself

    async def text(self, streamed: bool, model: str = "m", **headers: str) -> str:
        """The text of an answer that must be a good one."""
        if streamed:
            stream = await self.client.stream(ask(model), **headers)
            assert stream.done, stream.error
            self.attempts = stream.headers["x-trestle-attempts"]
            return stream.text()
        answer = await self.client.chat(ask(model), **headers)
        assert answer.status == 200, answer.body
        self.attempts = answer.headers["x-trestle-attempts"]
        text: str = answer.json["choices"][0]["message"]["content"]
        return text


@asynccontextmanager
async def route(
    folder: Path,
    targets: int = 2,
    upstream: dict[str, Any] | None = None,
    gateway: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Two]:
    """A model `m` over so many upstreams; settings: the route's; upstream, gateway: theirs."""
    async with ScriptedUpstream() as first, ScriptedUpstream() as second:
        more = {"retries": 0, **(upstream or {})}
        upstreams = {"first": {"base_url": first.url, **more}, "second": {"base_url": second.url, **more}}
        listed = [{"worker": "w", "upstream": name, "model": "m"} for name in upstreams][:targets]
        models = [{"name": "m", "targets": listed, **settings}]
        async with (
            services.worker("openai", folder, upstreams) as worker,
            services.gateway({"workers": {"w": worker.address}, "models": models, **(gateway or {})}, folder) as served,
            Client(served.address) as client,
        ):
            yield Two(client, served, worker, first, second)


def good(streamed: bool, text: str = "Good.") -> Reply:
    return Reply.sse(*text_stream([text])) if streamed else Reply.json(completion(text))


def silent(streamed: bool) -> Reply:
    """The head of an answer, and nothing more."""
    if not streamed:
        return Reply([Gate()], headers={"content-type": "application/json"})
    return Reply.sse(sse(chunk({"role": "assistant", "content": ""})), Gate())


def ask_body(streamed: bool) -> bytes:
    return json.dumps({**ask("m"), "stream": streamed}).encode()
