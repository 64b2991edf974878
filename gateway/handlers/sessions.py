"""`GET /v1/sessions/{id}/events`: what happens in a session, as server-sent events while it happens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from aiohttp import hdrs

from gateway.exchange import Exchange
from gateway.openai import render
from gateway.reply import Reply
from gateway.sessions import Sessions, event_id
from gateway.sse import SseAnswer
from trestle.v1 import session_pb2

Object = dict[str, Any]
_HELLO: Final = b"retry: 1000\n\n"
_NAMES: Final = {
    "started": "request.started",
    "tool_call": "tool_call.emitted",
    "usage": "usage",
    "finished": "request.finished",
    "failed": "request.failed",
    "gap": "session.gap",
}


class SessionsHandler:
    """keep_alive: as in `SseAnswer`."""

    def __init__(self, sessions: Sessions, keep_alive: float) -> None:
        self._sessions = sessions
        self._keep_alive = keep_alive

    async def events(self, exchange: Exchange) -> Reply:
        """Until the client leaves or the gateway ends. `Last-Event-ID` or `after`: where to go on."""
        given = exchange.http.headers.get("last-event-id") or exchange.http.query.get("after", "")
        after = event_id(given)
        told = self._sessions.read(exchange.identity.account, exchange.named["id"], after)
        answer = SseAnswer(exchange, self._keep_alive, _nothing_more)
        try:
            if exchange.http.method == hdrs.METH_HEAD:
                return await answer.end(b"")
            await answer.send(_HELLO)
            async for events in told:
                await answer.send(encode(events))
            return await answer.end(b"")
        finally:
            answer.close()


async def _nothing_more() -> dict[str, str]:
    return {}


def encode(events: Sequence[session_pb2.SessionEvent]) -> bytes:
    """Events as the bytes of an event stream."""
    out = bytearray()
    for event in events:
        kind = event.WhichOneof("event")
        if kind is None:
            continue  # newer than this gateway
        if event.id:
            out += b"id: %b\n" % event.id.encode()
        out += b"event: %b\ndata: %b\n\n" % (_NAMES[kind].encode(), msgspec.json.encode(_data(event, kind)))
    return bytes(out)


def _data(event: session_pb2.SessionEvent, kind: str) -> Object:
    out: Object = {"type": _NAMES[kind]}
    if kind == "gap":
        return out
    out["id"] = event.id
    out["created"] = event.time.seconds + event.time.nanos / 1e9
    out["request_id"] = event.request_id
    if event.client_id:
        out["client_id"] = event.client_id
    if kind == "usage":
        out["usage"] = render.usage(event.usage)
        return out
    told = getattr(event, kind)
    for field in told.DESCRIPTOR.fields:
        value = getattr(told, field.name)
        if value != "":
            out["call_id" if kind == "tool_call" and field.name == "id" else field.name] = value
    return out
