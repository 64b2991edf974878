"""The table of endpoints."""

from __future__ import annotations

import pytest

from gateway.endpoints import Endpoint, Table
from gateway.exchange import Exchange
from gateway.reply import Reply


async def _handler(exchange: Exchange) -> Reply:
    return exchange.json({})


TABLE = Table(
    Endpoint(method, path, _handler)
    for method, path in (
        ("GET", "/models"),
        ("POST", "/models"),
        ("GET", "/models/{id:.+}"),
        ("DELETE", "/models/{id:.+}"),
        ("POST", "/keys/{key}/disable"),
        ("GET", "/a.b"),
    )
)


@pytest.mark.parametrize(
    ("path", "methods", "named"),
    [
        ("/models", {"GET", "HEAD", "POST"}, {}),
        ("/models/x", {"GET", "HEAD", "DELETE"}, {"id": "x"}),
        ("/models/org/x:free", {"GET", "HEAD", "DELETE"}, {"id": "org/x:free"}),
        ("/models/org%2Fx%3Afree", {"GET", "HEAD", "DELETE"}, {"id": "org/x:free"}),
        ("/models/50%25", {"GET", "HEAD", "DELETE"}, {"id": "50%"}),
        ("/keys/tr_1/disable", {"POST"}, {"key": "tr_1"}),
        ("/models/", set(), {}),
        ("/keys/tr_1/x/disable", set(), {}),
        ("/keys//disable", set(), {}),
        ("/aXb", set(), {}),
        ("/nowhere", set(), {}),
        ("", set(), {}),
    ],
)
def test_what_a_path_takes(path: str, methods: set[str], named: dict[str, str]) -> None:
    found, texts = TABLE.at(path)
    assert (set(found), dict(texts)) == (methods, named)


def test_each_method_has_its_own_endpoint() -> None:
    methods, _ = TABLE.at("/models")
    assert [methods[name].method for name in ("GET", "HEAD", "POST")] == ["GET", "GET", "POST"]
