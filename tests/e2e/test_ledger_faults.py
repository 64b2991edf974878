"""Whatever happens to requests, to the database and to the gateway itself: the rows are those of the requests that the
upstreams have counted."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import select
from support import services
from support.chain import model
from support.client import Client, ask
from support.databases import PostgreSQL
from support.upstream import PATIENCE, Cut, Gate, Reply, ScriptedUpstream, chunk, completion, sse, text_stream

from gateway.store.database import Database, parse
from gateway.store.schema import USAGE
from trestle.errors import CallError

KEY: Final = "sk-one-that-chats"
NARROW: Final = "sk-one-that-embeds"
SMALL: Final = "sk-one-with-hardly-a-token"
BOUND: Final = "sk-one-for-another-model"
KINDS: Final = pytest.mark.parametrize("kind", ["sqlite", "postgresql"])


@dataclass
class Lab:
    """Two upstreams, their worker, and the settings of gateways before them."""

    first: ScriptedUpstream
    second: ScriptedUpstream
    settings: dict[str, Any]
    folder: Path
    address: str = ""
    known: dict[str, tuple[str, int, str, int]] = field(default_factory=dict)

    @property
    def asked(self) -> int:
        """How many requests the upstreams have had."""
        return len(self.first.requests) + len(self.second.requests)

    def client(self, key: str = KEY) -> Client:
        return Client(self.address, {"authorization": f"Bearer {key}"})

    def gateway(self, name: str) -> Any:
        return services.gateway(self.settings, self.folder, name)

    async def rows(self) -> dict[str, Any]:
        """By the request's id, once as many are there as are known to have been asked for."""
        database = Database(parse(self.settings["database"]))
        try:
            async with asyncio.timeout(2 * PATIENCE):
                while True:
                    try:
                        async with database.reading() as connection:
                            found = (await connection.execute(select(USAGE))).mappings().all()
                    except CallError:
                        continue
                    if len(found) >= len(self.known):
                        assert len(found) == len({row["request"] for row in found})
                        return {row["request"]: row for row in found}
                    await asyncio.sleep(0.02)
        finally:
            await database.close()


@asynccontextmanager
async def lab(folder: Path, database: str, **ledger: Any) -> AsyncIterator[Lab]:
    def key(name: str, text: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "sha256": hashlib.sha256(text.encode()).hexdigest(), **more}

    async with ScriptedUpstream() as first, ScriptedUpstream() as second:
        upstreams = {
            name: {"base_url": upstream.url, "retries": 0} for name, upstream in (("first", first), ("second", second))
        }
        async with services.worker("openai", folder, upstreams) as worker:
            settings = {
                "auth": "keys",
                "keys": [
                    key("all", KEY),
                    key("narrow", NARROW, scopes=["embeddings"]),
                    key("bound", BOUND, models=["pair"]),
                    key("small", SMALL, limits={"tokens_per_minute": 1}),
                ],
                "workers": {"openai": worker.address},
                "models": [
                    model("one", "first"),
                    model("pair", "first", "second"),
                    {**model("hedged", "first", "second"), "hedge_after": 0.05},
                    {**model("hasty", "first"), "first_token_timeout": 0.2},
                ],
                "breaker": {"failures": 1000, "longest_rest": 0},
                "database": database,
                "ledger": {"outbox": str(folder / "outbox"), **ledger},
            }
            yield Lab(first, second, settings, folder)


async def spend(lab: Lab, round_: str) -> None:
    """All that the small key may use in the next minutes, at a gateway that has just begun."""
    lab.known[f"{round_}-spent"] = ("done", 200, "", 1)
    lab.first.will(Reply.json(completion()))
    async with lab.client(SMALL) as client:
        assert (await client.chat(ask("one"), x_request_id=f"{round_}-spent")).status == 200


async def every_fault(lab: Lab, round_: str) -> None:
    """One request for each way in which one can end; what its row is to be stands in `known` then."""

    def will_be(name: str, outcome: str, status: int, reason: str, attempts: int) -> str:
        lab.known[f"{round_}-{name}"] = (outcome, status, reason, attempts)
        return f"{round_}-{name}"

    async def whole(model: str, request: str, status: int, key: str = KEY) -> None:
        async with lab.client(key) as client:
            assert (await client.chat(ask(model), x_request_id=request)).status == status

    answers = Reply.json(completion())
    lab.first.will(answers)
    await whole("one", will_be("done", "done", 200, "", 1), 200)
    for status, seen, reason in (
        (400, 400, "INVALID_REQUEST"),
        (429, 429, "UPSTREAM_RATE_LIMITED"),
        (500, 502, "UPSTREAM_FAILED"),
        (503, 503, "UPSTREAM_OVERLOADED"),
    ):
        lab.first.will(Reply.json({"error": {"message": "No.", "type": "x"}}, status))
        await whole("one", will_be(f"upstream-{status}", "failed", seen, reason, 1), seen)
    lab.first.will(Reply.json({"error": {"message": "No.", "type": "x"}}, 503))
    lab.second.will(answers)
    await whole("pair", will_be("fallback", "done", 200, "", 2), 200)
    lab.first.will(Reply([Gate()], headers={"content-type": "application/json"}))
    lab.second.will(answers)
    await whole("hedged", will_be("hedge", "done", 200, "", 2), 200)
    lab.first.will(Reply.sse(sse(chunk({"role": "assistant", "content": ""})), Gate()))
    await whole("hasty", will_be("silent", "failed", 504, "UPSTREAM_TIMEOUT", 1), 504)
    await whole("nobody", will_be("unknown", "refused", 404, "MODEL_NOT_FOUND", 0), 404)
    await whole("one", will_be("scope", "refused", 403, "PERMISSION_DENIED", 0), 403, NARROW)
    await whole("one", will_be("model", "refused", 403, "PERMISSION_DENIED", 0), 403, BOUND)
    await whole("one", will_be("limit", "refused", 429, "RATE_LIMITED", 0), 429, SMALL)
    async with lab.client() as client:
        request = will_be("bad", "refused", 400, "INVALID_REQUEST", 0)
        assert (await client.ask("POST", "/v1/chat/completions", b"{", x_request_id=request)).status == 400
        lab.first.will(Reply.sse(*text_stream(["Hi."])))
        assert (await client.stream(ask("one"), x_request_id=will_be("stream", "done", 200, "", 1))).done
        for cut in (Cut.RESET, Cut.CLOSE):
            lab.first.will(Reply.sse(*text_stream(["Hi."])[:2], cut))
            request = will_be(f"cut-{cut.name}", "failed", 200, "UPSTREAM_TRUNCATED", 1)
            assert (await client.stream(ask("one"), x_request_id=request)).error is not None
        lab.first.will(Reply.sse(*text_stream(["12345678"])[:2], Gate()))
        async with client.open(ask("one"), x_request_id=will_be("left-late", "cancelled", 200, "", 1)) as stream:
            await stream.text("12345678")
            stream.hang_up()
        await lab.first.requests[-1].closed()
    async with lab.client() as client:
        lab.first.will(Reply.sse(sse(chunk({"role": "assistant", "content": ""})), Gate()))
        before = len(lab.first.requests)
        request = will_be("left-early", "cancelled", 0, "", 1)
        leaving = asyncio.create_task(client.stream(ask("one"), x_request_id=request))
        await until(lambda: len(lab.first.requests) > before)
        leaving.cancel()
        await lab.first.requests[-1].closed()


async def assert_as_counted(lab: Lab) -> None:
    rows = await lab.rows()
    seen = {
        name: (row["outcome"], row["status"], row["reason"], len(json.loads(row["attempts"])))
        for name, row in rows.items()
    }
    different = {name: (seen.get(name), known) for name, known in lab.known.items() if seen.get(name) != known}
    assert not different, different
    assert len(seen) == len(lab.known)
    assert sum(len(json.loads(row["attempts"])) for row in rows.values()) == lab.asked


@asynccontextmanager
async def away(kind: str, lab: Lab, postgresql: PostgreSQL) -> AsyncIterator[None]:
    """The database cannot be written meanwhile."""
    if kind == "postgresql":
        postgresql.stop("fast")
        try:
            yield
        finally:
            postgresql.start()
        return
    holder = sqlite3.connect(lab.folder / "t.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        holder.execute("ROLLBACK")
        holder.close()


def database_of(kind: str, folder: Path, postgresql: PostgreSQL) -> str:
    return postgresql.create() if kind == "postgresql" else f"sqlite:///{folder}/t.db"


@KINDS
async def test_the_rows_are_what_the_upstreams_counted(kind: str, tmp_path: Path, postgresql: PostgreSQL) -> None:
    """Through every fault of a request, with the database there, away and there again, and the gateway killed."""
    database = database_of(kind, tmp_path, postgresql)
    async with lab(tmp_path, database, flush_interval=0.02, interval=0.1) as it:
        async with it.gateway("first") as killed:
            it.address = killed.address
            await spend(it, "there")
            await every_fault(it, "there")
            await assert_as_counted(it)
            async with away(kind, it, postgresql):
                await every_fault(it, "away")
                await killed.logged("rows of the ledger wait in the outbox")
                await until_written(it.folder / "outbox", "away")
            await every_fault(it, "again")
            await assert_as_counted(it)
            async with away(kind, it, postgresql):
                await every_fault(it, "killed")
                await until_written(it.folder / "outbox", "killed")
                await killed.kill()
        async with it.gateway("second") as next_:
            it.address = next_.address
            await spend(it, "next")
            await every_fault(it, "next")
            await assert_as_counted(it)


async def until_written(outbox: Path, round_: str) -> None:
    """The round's last row is on the disk."""

    def written() -> bool:
        # A file that is sealed meanwhile is looked at again.
        with contextlib.suppress(FileNotFoundError):
            return any(f'"{round_}-left-early"'.encode() in file.read_bytes() for file in outbox.iterdir())
        return False

    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(written):  # noqa: ASYNC110 (nobody tells of it)
            await asyncio.sleep(0.01)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 (what is waited for is a number)
            await asyncio.sleep(0.01)


async def test_a_gateway_killed_under_load_loses_no_more_than_its_window(tmp_path: Path) -> None:
    """What is missing is what came behind the last batch that was written, and nothing before it."""
    async with lab(tmp_path, f"sqlite:///{tmp_path}/t.db", interval=0.2) as it:
        it.first.always = lambda _: Reply.json(completion())
        outbox = it.folder / "outbox"
        answered: list[str] = []

        async def go_on(worker: int) -> None:
            async with it.client() as client:
                for number in range(100_000):
                    request = f"{worker}-{number}"
                    await client.chat(ask("one"), x_request_id=request)
                    answered.append(request)

        async with it.gateway("killed") as killed:
            it.address = killed.address
            tasks = [asyncio.create_task(go_on(worker)) for worker in range(4)]
            await until(lambda: len(answered) >= 400)
            await killed.kill()
            await asyncio.gather(*tasks, return_exceptions=True)
        async with it.gateway("next") as next_:
            # Nothing may have been left, when it was killed just after a delivery; its lock is.
            await until(lambda: len(list(outbox.glob("*.lock"))) == 1)
            it.address = next_.address
            async with it.client() as client:
                assert (await client.chat(ask("one"), x_request_id="last")).status == 200
        rows = await it.rows()  # `next` has delivered all that it had, at its end at the latest
        assert "last" in rows
        there = [place for place, request in enumerate(answered) if request in rows]
        missing = [place for place, request in enumerate(answered) if request not in rows]
        # What is missing is what ended last; a client hears of its end a little sooner or later than another one.
        assert there
        assert not missing or missing[0] > there[-1] - len(tasks)
        unheard = it.asked - 1 - len(answered)
        assert 0 <= unheard <= len(tasks)
        assert len(there) <= len(rows) - 1 <= len(there) + unheard


@pytest.mark.parametrize("how", ["stopped", "frozen"])
async def test_sigterm_leaves_in_a_full_outbox_what_a_database_that_is_away_does_not_take(
    how: str, tmp_path: Path, postgresql: PostgreSQL
) -> None:
    database = postgresql.create()
    async with lab(tmp_path, database, flush_interval=0.02, interval=0.05, max_outbox_bytes=1024) as it:
        it.first.always = lambda _: Reply.json(completion())
        async with it.gateway("full") as full:
            it.address = full.address
            async with out(how, postgresql):
                async with it.client() as client:
                    for number in range(30):
                        it.known[str(number)] = ("done", 200, "", 1)
                        assert (await client.chat(ask("one"), x_request_id=str(number))).status == 200
                await full.logged("the outbox cannot be written")
                assert await full.stop() == 0
                assert "are lost" not in full.new_log()
        async with it.gateway("next"):
            await assert_as_counted(it)


@asynccontextmanager
async def out(how: str, postgresql: PostgreSQL) -> AsyncIterator[None]:
    if how == "stopped":
        postgresql.stop("fast")
    else:
        postgresql.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        if how == "stopped":
            postgresql.start()
        else:
            postgresql.signal(signal.SIGCONT)
