"""The ledger: what the upstream itself has counted is what is there, whatever happened to requests, gateways and
databases."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support import accounts, services
from support.accounts import Bridge, Gateway, trestle
from support.chain import model
from support.client import Client, ask
from support.databases import PostgreSQL
from support.upstream import PATIENCE, USAGE, Cut, Gate, Reply, ScriptedUpstream, chunk, completion, sse, text_stream

pytestmark = pytest.mark.asyncio(loop_scope="session")
BUSY = Reply.json({"error": {"message": "Busy.", "type": "server_error"}}, 503)


async def usage(gateway: Gateway, requests: int, **query: str) -> list[dict[str, Any]]:
    """What the operator is told, once so many requests are there."""
    text = "&".join(f"{name}={value}" for name, value in query.items())
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await gateway.manage("GET", f"/usage?{text}")
            if answer.status == 503:
                continue  # the database is not there again yet
            assert answer.status == 200, answer.body
            rows: list[dict[str, Any]] = answer.json["data"]
            if sum(row["requests"] for row in rows) >= requests:
                return rows


async def chat(bridge: Bridge, key: str, reply: Reply | None, name: str = "scripted", **headers: str) -> int:
    if reply is not None:
        bridge.upstream.will(reply)
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return (await bridge.first.ask("POST", "/v1/chat/completions", key, ask(name), **named)).status


async def leave(bridge: Bridge, key: str, *pieces: Any, texts: str) -> None:
    """A stream whose client goes when it has seen so much."""
    bridge.upstream.will(Reply.sse(*pieces, Gate()))
    async with Client(bridge.first.service.address, {"authorization": f"Bearer {key}"}) as client:
        async with client.open(ask("scripted")) as stream:
            await stream.text(texts)
            stream.hang_up()
        await bridge.upstream.requests[-1].closed()


async def test_every_outcome_has_its_row(bridge: Bridge) -> None:
    account = await bridge.account()
    key = await bridge.key(account)
    assert await chat(bridge, key, Reply.json(completion())) == 200
    bridge.upstream.will(Reply.sse(*text_stream(["Hi."])))
    async with Client(bridge.first.service.address, {"authorization": f"Bearer {key}"}) as client:
        assert (await client.stream(ask("scripted"))).done
        bridge.upstream.will(Reply.sse(*text_stream(["Hi."])[:2], Cut.RESET))
        assert (await client.stream(ask("scripted"))).error is not None
        assert (await client.ask("POST", "/v1/chat/completions", b"{")).status == 400
    await leave(bridge, key, *text_stream(["12345678"])[:2], texts="12345678")
    assert await chat(bridge, key, BUSY) == 503
    assert await chat(bridge, key, None, "nobody") == 404
    rows = await usage(bridge.first, 7, account=bridge.accounts[account], group_by="outcome")
    by_outcome = {row["outcome"]: row for row in rows}
    assert {name: row["requests"] for name, row in by_outcome.items()} == {
        "done": 2,
        "failed": 2,
        "cancelled": 1,
        "refused": 2,
    }
    done, failed, cancelled = by_outcome["done"], by_outcome["failed"], by_outcome["cancelled"]
    assert done["input_tokens"] == 2 * USAGE["prompt_tokens"]
    assert done["output_tokens"] == 2 * USAGE["completion_tokens"]
    assert (done["estimated"], done["failed"]) == (0, 0)
    assert (failed["estimated"], failed["failed"]) == (1, 2)  # what was cut may be billed, what was busy is not
    assert cancelled["output_tokens"] == 2
    assert by_outcome["refused"]["input_tokens"] == 0


async def test_sums_by_what_the_caller_says(bridge: Bridge) -> None:
    key = await bridge.key()
    for session, user in (("s1", "u1"), ("s1", "u2"), ("s2", "u1")):
        bridge.upstream.will(Reply.json(completion()))
        body = {**ask("scripted"), "user": user}
        answer = await bridge.first.ask("POST", "/v1/chat/completions", key, body, **{"x-session-id": session})
        assert answer.status == 200
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await bridge.second.ask("GET", "/v1/usage?group_by=session,user", key)
            if sum(row["requests"] for row in answer.json["data"]) == 3:
                break
    shown = [(row["session"], row["user"], row["requests"]) for row in answer.json["data"]]
    assert shown == [("s1", "u1", 1), ("s1", "u2", 1), ("s2", "u1", 1)]
    answer = await bridge.first.ask("GET", "/v1/usage?group_by=day,model&session=s1&format=csv", key)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    (row,) = csv.DictReader(io.StringIO(answer.body.decode()))
    assert (row["model"], row["requests"], len(row["day"])) == ("scripted", "2", 10)
    for wrong in ("group_by=account", "group_by=x", "from=x", "limit=0", "format=xml", "accounts=a"):
        answer = await bridge.first.ask("GET", f"/v1/usage?{wrong}", key)
        assert (answer.status, answer.error()["param"]) == (400, wrong.partition("=")[0])


async def test_nobody_sees_or_erases_another_ones(bridge: Bridge) -> None:
    mine, other = await bridge.account(), await bridge.account()
    key, theirs = await bridge.key(mine), await bridge.key(other)
    for each in (key, theirs):
        assert await chat(bridge, each, Reply.json(completion())) == 200
    for each in (mine, other):
        await usage(bridge.first, 1, account=bridge.accounts[each])
    answer = await bridge.first.ask("GET", "/v1/usage?group_by=key", key)
    assert [row["key"] for row in answer.json["data"]] == [key.rpartition("_")[0]]
    answer = await bridge.first.ask("GET", f"/v1/usage?key={theirs.rpartition('_')[0]}", key)
    assert answer.json["data"][0]["requests"] == 0
    for shown, status in (("", 401), (await bridge.key(mine, scopes=["chat"]), 403)):
        assert (await bridge.first.ask("GET", "/v1/usage", shown)).status == status
    assert (await bridge.first.manage("GET", "/usage", key=key)).status == 401
    assert (await bridge.first.manage("DELETE", "/usage")).status == 400
    gone = await bridge.first.manage("DELETE", f"/usage?account={bridge.accounts[mine]}")
    assert gone.json == {"object": "usage", "deleted": 1}
    assert (await usage(bridge.first, 1, account=bridge.accounts[other]))[0]["requests"] == 1


async def test_every_target_that_was_asked_is_paid_for(tmp_path: Path) -> None:
    async with alone(tmp_path, f"sqlite:///{tmp_path}/t.db") as it:
        cut = Reply.sse(sse(chunk({"role": "assistant"})), sse(chunk(choices=[], usage=USAGE)), Cut.CLOSE)
        it.upstream.will(cut, Reply.sse(*text_stream(["Hi."])))
        async with Client(it.gateway.service.address) as client:
            assert (await client.stream(ask("pair"))).done
        (row,) = await usage(it.gateway, 1)
        assert row["input_tokens"] == 2 * USAGE["prompt_tokens"]
        assert row["cost"] == pytest.approx(
            2 * (USAGE["prompt_tokens"] * 3 + USAGE["completion_tokens"] * 15) / 1_000_000
        )


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (b"x-session-id: a\xff\r\n", {}),
        (b"x-client-id: " + b"a" * 4000 + b"\r\n", {}),
        (b"", {"user": "a\0b"}),
        (b"", {"model": "no\0body"}),
        (b"", {"model": "m" * 5000}),
        (b"", {"usage": {"prompt_tokens": 2**62, "completion_tokens": 2**62, "total_tokens": 2**63}}),
    ],
    ids=["bytes", "long-id", "nul", "nul-model", "long-model", "usage"],
)
async def test_no_request_stops_the_ledger(bridge: Bridge, headers: bytes, body: dict[str, Any]) -> None:
    """What the database would not take, or the outbox could not write, is made fit: the rows behind it arrive."""
    account = await bridge.account()
    key = await bridge.key(account)
    told = {**completion(), "usage": body.pop("usage", USAGE)}
    if not headers and "model" not in body:
        bridge.upstream.will(Reply.json(told))
    await post_raw(bridge.first.service.address, key, headers, {**ask("scripted"), **body})
    for _ in range(3):
        assert await chat(bridge, key, Reply.json(completion())) == 200
    assert sum(row["requests"] for row in await usage(bridge.first, 4, account=account)) == 4


async def post_raw(address: str, key: str, headers: bytes, body: dict[str, Any]) -> None:
    """A chat whose headers no client library would send."""
    text = json.dumps(body).encode()
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n"
    writer.write(head.encode() + headers + b"content-length: %d\r\n\r\n" % len(text) + text)
    assert await reader.read()
    writer.close()


async def test_erasure_asks_whose(bridge: Bridge) -> None:
    """What names nobody, or nothing yet, erases nothing."""
    account = await bridge.account()
    key = await bridge.key(account)
    for user in ("", "u1", "u2"):
        bridge.upstream.will(Reply.json(completion()))
        body = {**ask("scripted"), **({"user": user} if user else {})}
        assert (await bridge.first.ask("POST", "/v1/chat/completions", key, body)).status == 200
    await usage(bridge.first, 3, account=account)
    for wrong in ("", "user=", f"account={account}&user=", "to=2030-01-01", "model=scripted"):
        assert (await bridge.first.manage("DELETE", f"/usage?{wrong}")).status == 400
    for query, count in (("&to=1970-01-01", 0), ("&to=0", 0), ("&user=u1", 1), ("", 2)):
        gone = await bridge.first.manage("DELETE", f"/usage?account={account}{query}")
        assert (gone.status, gone.json["deleted"]) == (200, count)


async def test_pages_and_the_csv_that_accept_asks_for(bridge: Bridge) -> None:
    account = await bridge.account()
    key = await bridge.key(account)
    for user in ("=cmd()", "b", "c"):
        bridge.upstream.will(Reply.json(completion()))
        answer = await bridge.first.ask("POST", "/v1/chat/completions", key, {**ask("scripted"), "user": user})
        assert answer.status == 200
    await usage(bridge.first, 3, account=account)
    pages = [
        (await bridge.first.ask("GET", f"/v1/usage?group_by=user&limit=2&offset={offset}", key)).json
        for offset in (0, 2)
    ]
    assert [[row["user"] for row in page["data"]] for page in pages] == [["=cmd()", "b"], ["c"]]
    assert [page["has_more"] for page in pages] == [True, False]
    answer = await bridge.first.ask("GET", "/v1/usage?group_by=user", key, accept="text/csv")
    assert [row["user"] for row in csv.DictReader(io.StringIO(answer.body.decode()))] == ["'=cmd()", "b", "c"]


async def test_a_key_that_may_not_ask_leaves_a_row_too(bridge: Bridge) -> None:
    account = await bridge.account()
    for members in ({"scopes": ["embeddings"]}, {"models": ["other"]}):
        assert await chat(bridge, await bridge.key(account, **members), None) == 403
    (row,) = await usage(bridge.first, 2, account=account, group_by="outcome")
    assert (row["outcome"], row["requests"], row["input_tokens"]) == ("refused", 2, 0)


async def test_the_command(bridge: Bridge) -> None:
    account = await bridge.account()
    key = await bridge.key(account)
    for _ in range(2):
        assert await chat(bridge, key, Reply.json(completion())) == 200
    await usage(bridge.first, 2, account=account)
    at = ("--url", f"http://{bridge.first.admin}", "--account", account, "--by", "model")
    status, out, errors = await trestle("usage", *at)
    head, line = (each.split() for each in out.splitlines())
    assert (status, errors, head[:3]) == (0, "", ["model", "requests", "failed"])
    assert line[:5] == ["scripted", "2", "0", str(2 * USAGE["prompt_tokens"]), str(2 * USAGE["completion_tokens"])]
    status, out, _ = await trestle("usage", *at, "--csv")
    (row,) = csv.DictReader(io.StringIO(out))
    assert (status, row["model"], row["requests"], row["estimated"]) == (0, "scripted", "2", "0")
    status, _, errors = await trestle("usage", *at, "--from", "yesterday")
    assert (status, "expected a day" in errors) == (1, True)


class Alone:
    """One gateway before one upstream, over one database."""

    def __init__(self, gateway: Gateway, upstream: ScriptedUpstream, settings: dict[str, Any]) -> None:
        self.gateway = gateway
        self.upstream = upstream
        self.settings = settings


@asynccontextmanager
async def alone(folder: Path, database: str) -> AsyncIterator[Alone]:
    async with ScriptedUpstream() as upstream:
        upstreams = {name: {"base_url": upstream.url, "retries": 0} for name in ("first", "second")}
        async with services.worker("openai", folder, upstreams) as worker:
            settings = {
                "workers": {"openai": worker.address},
                "models": [model("scripted", "first"), model("pair", "first", "second")],
                "database": database,
                "ledger": {"flush_interval": 0.02, "interval": 0.05, "outbox": str(folder / "outbox")},
                "prices": [{"model": "scripted-*", "input": 3, "output": 15}],
            }
            async with accounts.gateway(settings, folder, "gateway") as gateway:
                yield Alone(gateway, upstream, settings)


async def ask_some(it: Alone, count: int) -> None:
    it.upstream.will(*[Reply.json(completion()) for _ in range(count)])
    async with Client(it.gateway.service.address) as client:
        for _ in range(count):
            assert (await client.chat(ask("scripted"))).status == 200


async def test_a_database_that_is_away_for_a_while(tmp_path: Path, postgresql: PostgreSQL) -> None:
    async with alone(tmp_path, postgresql.create()) as it:
        await ask_some(it, 3)
        await usage(it.gateway, 3)
        postgresql.stop("fast")
        try:
            await ask_some(it, 5)
            await it.gateway.service.logged("rows of the ledger wait in the outbox")
        finally:
            postgresql.start()
        (row,) = await usage(it.gateway, 8)
        assert row["requests"] == len(it.upstream.requests) == 8
        assert row["input_tokens"] == 8 * USAGE["prompt_tokens"]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_gateway_that_is_killed(tmp_path: Path, kind: str, postgresql: PostgreSQL) -> None:
    """What has come to the outbox is not lost: at most what happened within the last `flush_interval`."""
    database = postgresql.create() if kind == "postgresql" else f"sqlite:///{tmp_path}/t.db"
    async with ScriptedUpstream() as upstream:
        upstreams = {"first": {"base_url": upstream.url, "retries": 0}}
        async with services.worker("openai", tmp_path, upstreams) as worker:
            ledger = {"flush_interval": 0.01, "interval": 3600.0, "outbox": str(tmp_path / "outbox")}
            settings: dict[str, Any] = {
                "workers": {"openai": worker.address},
                "models": [model("scripted", "first")],
                "database": database,
                "ledger": ledger,
            }
            async with accounts.gateway(settings, tmp_path, "killed") as killed:
                upstream.will(*[Reply.json(completion()) for _ in range(20)])
                async with Client(killed.service.address) as client:
                    for _ in range(20):
                        assert (await client.chat(ask("scripted"))).status == 200
                await _kept(killed, tmp_path / "outbox", 20)
                await killed.service.kill()
            settings["ledger"] = {**ledger, "interval": 0.05}
            async with accounts.gateway(settings, tmp_path, "next") as gateway:
                (row,) = await usage(gateway, 20)
                assert row["requests"] == len(upstream.requests) == 20
                assert row["input_tokens"] == 20 * USAGE["prompt_tokens"]
            assert json.dumps([file.name for file in (tmp_path / "outbox").iterdir()]) == "[]"


async def _kept(gateway: Gateway, outbox: Path, rows: int) -> None:
    """Returns once so many are in the outbox or, by what the gateway does once as it starts, delivered already."""
    async with asyncio.timeout(PATIENCE):
        while True:
            delivered = sum(row["requests"] for row in await usage(gateway, 0))
            if delivered + _lines(outbox) >= rows:
                return


def _lines(outbox: Path) -> int:
    """How many rows wait in it; zero where some are on their way, which would be counted twice."""
    lines = 0
    for file in outbox.glob("*.open"):
        with contextlib.suppress(FileNotFoundError):  # its name has changed
            lines += file.read_bytes().count(b"\n")
    return 0 if any(outbox.glob("*.rows")) else lines


async def test_old_rows_are_forgotten(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/t.db"
    async with alone(tmp_path, database) as it:
        await ask_some(it, 2)
        await usage(it.gateway, 2)
        settings = it.settings
    connection = sqlite3.connect(tmp_path / "t.db")
    with connection:
        connection.execute("UPDATE usage SET at = at - 3 * 86400000 WHERE id = (SELECT min(id) FROM usage)")
    connection.close()
    settings["ledger"] = {**settings["ledger"], "keep_days": 2}
    async with accounts.gateway(settings, tmp_path, "later") as gateway:
        await gateway.service.logged("1 rows of the ledger were older than 2 days")
        (row,) = await usage(gateway, 1, **{"from": "2000-01-01"})
        assert row["requests"] == 1
