"""`GET /openapi.json`: what this gateway serves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import msgspec

import trestle
from gateway.exchange import Exchange
from gateway.openapi import describe
from gateway.openapi.document import Route
from gateway.reply import Reply


class OpenApiHandler:
    """routes: the gateway's table, complete by the time of the first request. keys: whether guarded ones ask for a
    key."""

    def __init__(self, routes: Sequence[Route], keys: bool) -> None:
        self._routes = routes
        self._keys = keys

    async def describe(self, exchange: Exchange) -> Reply:
        return exchange.answer(self._document)

    @cached_property
    def _document(self) -> bytes:
        return msgspec.json.encode(describe(self._routes, trestle.__version__, self._keys))
