"""Every endpoint of the gateway's own description, walked with no key, a wrong one, one without the scope, another
account's. A new endpoint is walked as soon as it is described."""

from __future__ import annotations

import json

import pytest
from support.accounts import Bridge
from support.upstream import Reply, completion

pytestmark = pytest.mark.asyncio(loop_scope="session")
WRONG = "tr_abcdefghij_" + "x" * 43
OPEN = {"/healthz", "/readyz", "/openapi.json"}
FOR_ANYBODY = {("get", "/models"), ("get", "/models/{id}")}
"""With a good key, whatever it is good for."""
MINE = {
    "/models": {"name": "mine", "worker": "openai", "upstream": "first", "model": "m"},
    "/agents": {"name": "poet", "model": "scripted"},
}


async def walked(bridge: Bridge) -> list[tuple[str, str]]:
    """Method and path of what asks for a key."""
    paths = (await bridge.first.ask("GET", "/openapi.json", "")).json["paths"]
    methods = ("get", "post", "put", "patch", "delete")
    found = [(method, path) for path, about in paths.items() for method in methods if method in about]
    assert len(found) > 18
    return [(method, path) for method, path in found if path not in OPEN]


async def status(bridge: Bridge, method: str, path: str, key: str) -> int:
    where = "/v1" + path.replace("{id}", "mine").replace("{name}", "poet")
    body: dict[str, str] | None = None if method in ("get", "delete") else {}
    return (await bridge.first.ask(method.upper(), where, key, body)).status


async def test_without_a_key_or_with_a_wrong_one_there_is_nothing(bridge: Bridge) -> None:
    for method, path in await walked(bridge):
        for key in ("", WRONG, "sk-anything"):
            assert await status(bridge, method, path, key) == 401, (method, path, key)


async def test_a_key_is_good_for_its_scopes_alone(bridge: Bridge) -> None:
    scopes = {name: await bridge.key(scopes=[name]) for name in ("chat", "embeddings", "manage")}
    allowed: dict[str, set[tuple[str, str]]] = {name: set() for name in scopes}
    for method, path in await walked(bridge):
        if "events" in path:
            continue  # it does not end for who may ask; test_sessions.py is about it
        for name, key in scopes.items():
            found = await status(bridge, method, path, key)
            assert found != 401
            if found != 403:
                allowed[name].add((method, path))
        if (method, path) not in FOR_ANYBODY:
            assert sum((method, path) in each for each in allowed.values()) == 1, (method, path)
    assert allowed["chat"] - FOR_ANYBODY == {
        ("post", path) for path in ("/chat/completions", "/completions", "/moderations")
    }
    assert allowed["embeddings"] - FOR_ANYBODY == {("post", "/embeddings")}


async def test_another_account_neither_sees_nor_changes_what_is_not_its_own(bridge: Bridge) -> None:
    mine, other = await bridge.key(), await bridge.key()
    for path, body in MINE.items():
        assert (await bridge.first.ask("POST", f"/v1{path}", mine, body)).status == 200
    bridge.upstream.will(Reply.json(completion()))
    asked = {"model": "mine", "messages": [{"role": "user", "content": "x"}]}
    assert (await bridge.first.ask("POST", "/v1/chat/completions", mine, asked)).status == 200
    for method, path in await walked(bridge):
        if method == "get" and "{" not in path:
            answer = await bridge.first.ask("GET", f"/v1{path}", other)
            shown = json.dumps(answer.json)
            assert "mine" not in shown, path
            assert "poet" not in shown, path
        elif "{" in path and "events" not in path:
            assert await status(bridge, method, path, other) in (400, 404), (method, path)
    refused = await bridge.first.ask("POST", "/v1/chat/completions", other, asked)
    assert (refused.status, refused.error()["code"]) == (404, "model_not_found")
    agents = (await bridge.first.ask("GET", "/v1/agents", mine)).json["data"]
    assert [agent["name"] for agent in agents] == ["poet"]
