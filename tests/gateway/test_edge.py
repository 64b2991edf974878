"""What stands around every endpoint."""

from __future__ import annotations

import logging

import aiohttp
import pytest

from gateway.auth import Keyring
from gateway.edge import Edge, Places
from gateway.endpoints import Endpoint, Table
from gateway.exchange import Exchange
from gateway.listener import Bounds, Listener
from gateway.reply import Reply, StreamReply
from gateway.settings import CorsSettings


async def test_a_client_that_is_gone_is_no_failure_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    """Its connection may end while an answer is being written, before anybody has noticed."""

    async def handler(exchange: Exchange) -> Reply:
        answer = StreamReply(exchange.http, exchange.headers())
        answer.write(b"some")
        assert exchange.http.transport is not None
        exchange.http.transport.close()
        with pytest.raises(ConnectionError):
            answer.write(b"more")
        answer.write(b"again")
        return answer

    edge = Edge(Table([Endpoint("GET", "/", handler)]), Keyring(None), CorsSettings(), Places())
    listener = Listener(edge.answer, Bounds(8192, 10, 10.0, 10.0, 1.0))
    address = await listener.listen("listen", "127.0.0.1:0")
    with caplog.at_level(logging.WARNING):
        async with aiohttp.ClientSession() as session, session.get(f"http://{address}/") as response:
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
        await listener.close()
    assert caplog.records == []
