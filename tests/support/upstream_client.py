"""The worker's HTTP client of a scripted upstream, and a request for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from worker.family import HttpRequest, Upstream, UpstreamSettings
from worker.upstream import UpstreamAnswer, UpstreamClient


@asynccontextmanager
async def calling(url: str, **settings: Any) -> AsyncIterator[UpstreamClient[UpstreamSettings]]:
    client = UpstreamClient(Upstream("scripted", UpstreamSettings(base_url=url, **settings)))
    try:
        yield client
    finally:
        await client.close()


def post(url: str, **headers: str) -> HttpRequest:
    return HttpRequest(url + "/chat/completions", headers, b"{}")


async def body_of(answer: UpstreamAnswer) -> bytes:
    try:
        return await answer.read_all(1 << 20)
    finally:
        answer.close()
