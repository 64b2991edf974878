"""What is written is what is read, on both databases, and versions say what changed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from gateway.auth import new_key
from gateway.ledger.rows import Row
from gateway.openai.errors import http_status
from gateway.store.accounts import AccountStore
from gateway.store.database import Database, parse
from gateway.store.migrate import migrate
from gateway.store.names import NameStore
from gateway.store.reader import StoreReader
from gateway.store.records import Key, Names
from gateway.store.schema import METADATA, USAGE
from trestle.config import ConfigError
from trestle.errors import CallError


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Migrated, and closed at the end."""
    database = Database(parse(database_url))
    await migrate(database)
    yield database
    await database.close()


@pytest.fixture
def accounts(database: Database) -> AccountStore:
    return AccountStore(database)


@pytest.fixture
def reader(database: Database) -> StoreReader:
    return StoreReader(database)


async def key_for(accounts: AccountStore, account: str, name: str = "k") -> Key:
    return await accounts.create_key(account, new_key(), name=name, scopes={"chat"}, models=["m"])


class TestMigrations:
    async def test_they_make_the_tables_of_the_schema(self, database: Database) -> None:
        def differences(connection: Connection) -> list[object]:
            return list(compare_metadata(MigrationContext.configure(connection), METADATA))

        async with database.reading() as connection:
            assert await connection.run_sync(differences) == []

    async def test_many_may_start_at_once(self, database_url: str) -> None:
        """Processes, not tasks: the lock is one between processes."""
        code = (
            "import asyncio, sys\n"
            "from gateway.store.database import Database, parse\n"
            "from gateway.store.migrate import migrate\n"
            "async def main():\n"
            "    database = Database(parse(sys.argv[1]))\n"
            "    await migrate(database)\n"
            "    await database.close()\n"
            "asyncio.run(main())\n"
        )
        processes = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", code, database_url),
                cwd=Path(__file__).parents[3],
                stderr=asyncio.subprocess.PIPE,
            )
            for _ in range(4)
        ]
        ends = [await process.communicate() for process in processes]
        assert [process.returncode for process in processes] == [0] * 4, ends
        database = Database(parse(database_url))
        assert [account.id for account in (await StoreReader(database).everything()).accounts] == ["default"]
        await database.close()

    async def test_a_later_versions_database_is_refused(self, database: Database) -> None:
        async with database.writing() as connection:
            await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(ConfigError, match=r"gateway\.database: cannot be migrated: .*9999"):
            await migrate(database)

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("trestle.db", "is not a URL"),
            ("mysql://a/b", "mysql is neither"),
            ("sqlite://", "needs a file"),
            ("sqlite:///:memory:", "needs a file"),
        ],
    )
    def test_what_is_no_database_is_refused(self, url: str, words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            parse(url)

    @pytest.mark.parametrize("url", ["sqlite:////nowhere/at/all/t.db", "postgresql://u@127.0.0.1:1/none"])
    async def test_what_cannot_be_reached_is_said(self, url: str) -> None:
        database = Database(parse(url))
        with pytest.raises(ConfigError, match=r"^gateway\.database: "):
            await migrate(database)
        await database.close()


class TestAccounts:
    async def test_an_account_is_found_by_id_and_name(self, accounts: AccountStore) -> None:
        made = await accounts.create("acme")
        assert await accounts.get(made.id) == await accounts.get("acme") == made
        assert not made.disabled

    async def test_two_of_a_name_cannot_be(self, accounts: AccountStore, reader: StoreReader) -> None:
        await accounts.create("acme")
        before = await reader.everything()
        with pytest.raises(CallError, match="There is an account 'acme' already") as caught:
            await accounts.create("acme")
        assert caught.value.param == "name"
        assert await reader.since(before.version) is None

    async def test_of_many_at_once_with_one_name_one_is_made(self, accounts: AccountStore) -> None:
        made = await asyncio.gather(*(accounts.create("acme") for _ in range(8)), return_exceptions=True)
        assert sum(not isinstance(each, CallError) for each in made) == 1
        assert [account.name for account in await accounts.list("", 10)] == ["acme", "default"]

    async def test_a_list_goes_on_where_it_ended(self, accounts: AccountStore) -> None:
        for name in ("b", "a", "c"):
            await accounts.create(name)
        assert [account.name for account in await accounts.list("", 2)] == ["a", "b"]
        assert [account.name for account in await accounts.list("b", 2)] == ["c", "default"]

    async def test_keys(self, accounts: AccountStore) -> None:
        await accounts.create("acme")
        key = await key_for(accounts, "acme")
        assert await accounts.key(key.id) == key
        assert key.scopes == ["chat"]
        assert key.models == ["m"]
        assert (await accounts.set_key_disabled(key.id, True)).disabled
        assert not (await accounts.set_key_disabled(key.id, False)).disabled
        assert (await accounts.expire_key(key.id, 17)).expires == 17
        other = await key_for(accounts, "default")
        assert [each.id for each in await accounts.keys("acme", "", 10)] == [key.id]
        assert [each.id for each in await accounts.keys("default", "", 10)] == [other.id]

    async def test_a_key_lasts_from_its_creation(self, accounts: AccountStore) -> None:
        key = await accounts.create_key("default", new_key(), name="k", scopes=[], models=None, lasts=60)
        assert key.expires == key.created + 60
        assert await accounts.key(key.id) == key

    async def test_a_rotated_key_hands_over_its_rights(self, accounts: AccountStore) -> None:
        key = await key_for(accounts, "default", "ci")
        new = new_key()
        old, replacement = await accounts.rotate_key(key.id, new, 60)
        assert (replacement.id, replacement.digest) == (new.id, new.digest)
        assert (replacement.name, replacement.scopes, replacement.models) == ("ci", ["chat"], ["m"])
        assert replacement.expires == 0
        assert old.expires == replacement.created + 60
        assert (await accounts.key(key.id)).expires == old.expires

    async def test_a_rotation_prolongs_nothing(self, accounts: AccountStore) -> None:
        key = await key_for(accounts, "default")
        soon = key.created + 30
        await accounts.expire_key(key.id, soon)
        old, replacement = await accounts.rotate_key(key.id, new_key(), 3600)
        assert (old.expires, replacement.expires) == (soon, soon)

    async def test_a_dead_key_is_not_rotated(self, accounts: AccountStore) -> None:
        key = await key_for(accounts, "default")
        await accounts.set_key_disabled(key.id, True)
        with pytest.raises(CallError, match="disabled or has expired"):
            await accounts.rotate_key(key.id, new_key(), 60)

    async def test_what_is_not_there(self, accounts: AccountStore) -> None:
        for asked in (accounts.get("x"), accounts.set_disabled("x", True), accounts.keys("x", "", 1)):
            with pytest.raises(CallError, match="There is no account 'x'"):
                await asked
        for of_key in (accounts.key("x"), accounts.expire_key("x", 1), accounts.rotate_key("x", new_key(), 1)):
            with pytest.raises(CallError, match="There is no key 'x'"):
                await of_key


    @pytest.mark.parametrize("said", ["a\0b", "x" * 5000], ids=["NUL", "long"])
    async def test_what_a_database_cannot_hold_is_no_outage(self, said: str, accounts: AccountStore) -> None:
        """PostgreSQL refuses such a value; SQLite does not, and has nothing of that name."""
        for asked in (accounts.get(said), accounts.key(said), accounts.set_key_disabled(said, True)):
            with pytest.raises(CallError) as caught:
                await asked
            assert http_status(caught.value) in (400, 404)


class TestNames:
    async def test_models_and_agents_share_one_namespace(self, database: Database) -> None:
        names = NameStore(database, 10)
        await names.add_agent("default", "a", b"{}")
        await names.add_model("default", "m", worker="w", upstream="", model="x", defaults=b"")
        for name in ("a", "m"):
            with pytest.raises(CallError, match="already"):
                await names.add_agent("default", name, b"{}")
            with pytest.raises(CallError, match="already"):
                await names.add_model("default", name, worker="w", upstream="", model="x", defaults=b"")

    async def test_an_account_may_be_full(self, database: Database) -> None:
        names = NameStore(database, 1)
        await names.add_agent("default", "a", b"{}")
        with pytest.raises(CallError, match="may have 1 "):
            await names.add_agent("default", "b", b"{}")
        await names.remove_agent("default", "a")
        assert (await names.add_agent("default", "b", b"{}")).name == "b"

    async def test_changes_at_once_are_all_kept(self, database: Database) -> None:
        names = NameStore(database, 10)
        await names.add_agent("default", "a", b"")
        await asyncio.gather(
            *(names.change_agent("default", "a", lambda old, n=n: old + str(n).encode()) for n in range(8))  # type: ignore[misc]
        )
        everything = await StoreReader(database).everything()
        (agent,) = everything.names["default"].agents
        assert sorted(agent.definition.decode()) == sorted("01234567")

    async def test_others_names_are_not_there(self, database: Database, accounts: AccountStore) -> None:
        acme = await accounts.create("acme")
        names = NameStore(database, 10)
        await names.add_agent(acme.id, "a", b"{}")
        with pytest.raises(CallError, match="There is no agent 'a'"):
            await names.remove_agent("default", "a")
        with pytest.raises(CallError, match="There is no agent 'a'"):
            await names.change_agent("default", "a", lambda old: old)


class TestVersions:
    async def test_nothing_changed(self, reader: StoreReader) -> None:
        assert await reader.since((await reader.everything()).version) is None

    async def test_what_changed_is_told_and_nothing_else(
        self, database: Database, accounts: AccountStore, reader: StoreReader
    ) -> None:
        acme = await accounts.create("acme")
        await key_for(accounts, "acme")
        start = (await reader.everything()).version
        key = await key_for(accounts, "acme")
        names = NameStore(database, 10)
        await names.add_agent(acme.id, "a", b"{}")
        delta = await reader.since(start)
        assert delta is not None
        assert not delta.whole
        assert (list(delta.accounts), list(delta.keys)) == ([], [key])
        assert [agent.name for agent in delta.names[acme.id].agents] == ["a"]
        await names.remove_agent(acme.id, "a")
        closed = await accounts.set_disabled("acme", True)
        last = await reader.since(delta.version)
        assert last is not None
        assert (list(last.accounts), dict(last.names)) == ([closed], {acme.id: Names()})

    async def test_who_is_too_far_behind_reads_everything(
        self, database: Database, accounts: AccountStore, reader: StoreReader
    ) -> None:
        await accounts.create("acme")
        async with database.writing() as connection:
            await connection.execute(text("UPDATE version SET number = 20000"))
        for version in (0, 30_000):  # the second: a database that was put back to an earlier state
            delta = await reader.since(version)
            assert delta is not None
            assert delta.whole
            assert delta.version == 20_000
            assert {account.name for account in delta.accounts} == {"acme", "default"}


def test_a_row_of_the_ledger_is_a_row_of_the_table_value_by_value() -> None:
    # They are written by their places.
    assert [field.name for field in msgspec.structs.fields(Row)] == [column.name for column in USAGE.c]
