"""The ledger over a real database and a real outbox: what it counts, and what stops it not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from sqlalchemy import text
from support.upstream import PATIENCE

from gateway.ledger.ledger import Ledger
from gateway.ledger.outbox import Outbox
from gateway.ledger.rows import Row
from gateway.prices import Prices
from gateway.settings import LedgerSettings
from gateway.store.database import Database, parse
from gateway.store.migrate import migrate
from gateway.store.usage import UsageStore, Which

QUICK = LedgerSettings(flush_interval=0.01, interval=0.02)
MOST = 10_000_000
ALL = Which(0, 2**62, {})


def row(name: str, **values: Any) -> Row:
    empty: dict[Any, Any] = {str: "", int: 0, bool: False}
    blank: dict[str, Any] = {field.name: empty[field.type] for field in msgspec.structs.fields(Row)}
    return Row(**{**blank, "id": name, **values})


def refused(database: Database) -> Row:
    """A row that the database will never take."""
    sqlite = database.url.get_backend_name() == "sqlite"
    return row("refused", request="req_refused", **({"cost": 2**63} if sqlite else {"session": "\0"}))


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(parse(database_url))
    await migrate(opened)
    yield opened
    await opened.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 (what is waited for is a number)
            await asyncio.sleep(0.01)


async def there(store: UsageStore) -> int:
    return int((await store.sums(ALL, [], 1))[0]["requests"])


async def test_a_row_that_the_database_refuses_holds_up_no_other(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = UsageStore(database)
    left = Outbox(tmp_path, MOST)
    left.append([*(row(f"a{n}") for n in range(10)), refused(database), *(row(f"b{n}") for n in range(10))])
    left.seal()
    left.append([row("c")])
    left.close()
    ledger = Ledger.open(store, tmp_path, QUICK, Prices([]))
    ledger.start()
    await until(lambda: ledger.lost == 1 and ledger.waiting == 0)
    await ledger.close()
    assert await there(store) == 21
    assert "req_refused" in caplog.text
    assert Outbox(tmp_path, MOST).adopt() == 0


async def test_what_fails_for_another_reason_is_kept(database: Database, tmp_path: Path) -> None:
    """A table that is not there is no fault of a row's."""
    store = UsageStore(database)
    left = Outbox(tmp_path, MOST)
    left.append([row("1"), row("2")])
    left.close()
    async with database.writing() as connection:
        await connection.execute(text("ALTER TABLE usage RENAME TO elsewhere"))
    ledger = Ledger.open(store, tmp_path, QUICK, Prices([]))
    ledger.start()
    await until(lambda: ledger.waiting == 2)
    async with database.writing() as connection:
        await connection.execute(text("ALTER TABLE elsewhere RENAME TO usage"))
    await until(lambda: ledger.waiting == 0)
    await ledger.close()
    assert (await there(store), ledger.lost) == (2, 0)


async def test_its_end_in_the_middle_of_a_delivery_delivers_all(database: Database, tmp_path: Path) -> None:
    store = UsageStore(database)
    left = Outbox(tmp_path, MOST)
    left.append([row(f"{n:04}") for n in range(3000)])  # several transactions
    left.close()
    ledger = Ledger.open(store, tmp_path, QUICK, Prices([]))
    ledger.start()
    async with asyncio.timeout(PATIENCE):
        while not await there(store):
            pass
    await ledger.close()
    assert (await there(store), ledger.waiting, ledger.lost) == (3000, 0, 0)


async def test_lines_that_cannot_be_read_are_counted(database: Database, tmp_path: Path) -> None:
    store = UsageStore(database)
    left = Outbox(tmp_path, MOST)
    left.append([row("1"), row("2")])
    left.seal()
    (file,) = left.sealed()
    os.truncate(file, file.stat().st_size - 20)
    left.close()
    ledger = Ledger.open(store, tmp_path, QUICK, Prices([]))
    ledger.start()
    await until(lambda: ledger.lost == 1)
    await ledger.close()
    assert (await there(store), ledger.waiting) == (1, 0)


async def test_rows_are_deleted_some_at_a_time_those_before_an_instant_alone(database: Database) -> None:
    store = UsageStore(database)
    await store.add([row(f"{n:05}", at=n // 2, user="u" if n % 3 else "v") for n in range(3000)])
    assert await store.forget(Which(0, 1400, {"user": "u"})) == sum(1 for n in range(2800) if n % 3)
    assert await store.forget(Which(0, 1400, {}), alone=True) == sum(1 for n in range(2800) if not n % 3)
    assert await there(store) == 200


async def test_two_gateways_do_not_delete_at_once(database_url: str) -> None:
    one, other = Database(parse(database_url)), Database(parse(database_url))
    await migrate(one)
    store = UsageStore(one)
    await store.add([row(f"{n:05}", at=n) for n in range(2500)])
    gone = await asyncio.gather(*(UsageStore(each).forget(ALL, alone=True) for each in (one, other)))
    assert sum(gone) == 2500
    assert await there(store) == 0
    for each in (one, other):
        await each.close()
