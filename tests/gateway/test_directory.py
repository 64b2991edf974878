"""Keys in memory: what changes is known, what is unknown is bounded, and an outage closes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.auth import NewKey, new_key
from gateway.directory import Directory
from gateway.settings import DirectorySettings
from gateway.store.accounts import AccountStore
from gateway.store.database import Database, parse
from gateway.store.migrate import migrate
from gateway.store.reader import StoreReader
from gateway.store.records import Account, Delta, Key
from trestle.errors import CallError, Reason


class Clock:
    """Seconds, moved by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Reader(StoreReader):
    """Counts what is looked up. gone: the database is not there. read: a look-up has read what it wanted to know; gate:
    its answer waits for this."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.gone = False
        self.looked_up: list[bytes] = []
        self.read = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def since(self, version: int) -> Delta | None:
        self._check()
        return await super().since(version)

    async def key(self, digest: bytes) -> tuple[Key, Account] | None:
        self.looked_up.append(digest)
        self._check()
        found = await super().key(digest)
        self.read.set()
        await self.gate.wait()
        return found

    def _check(self) -> None:
        if self.gone:
            raise CallError(Reason.OVERLOADED, "gone", code="database_unavailable", retry_after=1.0)


class World:
    """A database, what writes to it, and a directory over it that is refreshed by hand."""

    def __init__(self, database: Database, settings: DirectorySettings) -> None:
        self.accounts = AccountStore(database)
        self.reader = Reader(database)
        self.clock = Clock()
        self.directory = Directory(self.reader, settings, self.clock)

    async def key(self, account: str = "default", *, expires: int = 0, models: list[str] | None = None) -> NewKey:
        new = new_key()
        await self.accounts.create_key(account, new, name="k", scopes={"chat"}, models=models)
        if expires:
            await self.accounts.expire_key(new.id, expires)
        return new


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    database = Database(parse(database_url))
    await migrate(database)
    world = World(database, DirectorySettings(lookups_per_second=5, remember_unknown=10))
    await world.directory.load()
    yield world
    await database.close()


async def refusal(directory: Directory, key: NewKey) -> CallError:
    """The error with which the key is refused, from memory or after a look-up."""
    with pytest.raises(CallError) as caught:
        assert directory.find(key.digest) or await directory.look_up(key.digest)
    return caught.value


class TestWhatIsKnown:
    async def test_at_the_start(self, world: World) -> None:
        key = await world.key(models=["m"])
        directory = Directory(world.reader, DirectorySettings())
        await directory.load()
        identity = directory.find(key.digest)
        assert identity is not None
        assert (identity.account, identity.key, identity.scopes) == ("default", key.id, frozenset({"chat"}))
        assert identity.models == frozenset({"m"})

    async def test_a_new_key_after_a_refresh(self, world: World) -> None:
        key = await world.key()
        assert world.directory.find(key.digest) is None
        await world.directory.refresh()
        assert world.directory.find(key.digest) is not None
        assert world.reader.looked_up == []

    async def test_a_disabled_key(self, world: World) -> None:
        key = await world.key()
        await world.directory.refresh()
        await world.accounts.set_key_disabled(key.id, True)
        await world.directory.refresh()
        assert (await refusal(world.directory, key)).code == "invalid_api_key"
        await world.accounts.set_key_disabled(key.id, False)
        await world.directory.refresh()
        assert world.directory.find(key.digest) is not None

    async def test_an_expired_key_needs_no_refresh(self, world: World) -> None:
        key = await world.key(expires=1)
        await world.directory.refresh()
        error = await refusal(world.directory, key)
        assert (error.reason, error.code) == (Reason.UNAUTHENTICATED, "expired_api_key")

    async def test_a_disabled_account(self, world: World) -> None:
        await world.accounts.create("acme")
        key = await world.key("acme")
        await world.directory.refresh()
        await world.accounts.set_disabled("acme", True)
        await world.directory.refresh()
        error = await refusal(world.directory, key)
        assert (error.reason, error.code) == (Reason.PERMISSION_DENIED, "account_disabled")
        other = await world.key("acme")
        assert (await refusal(world.directory, other)).code == "account_disabled"

    async def test_both_keys_of_a_rotation(self, world: World) -> None:
        key, new = await world.key(), new_key()
        await world.accounts.rotate_key(key.id, new, 3600)
        await world.directory.refresh()
        assert world.directory.find(key.digest) is not None
        assert world.directory.find(new.digest) is not None


class TestWhatIsUnknown:
    async def test_is_looked_up_once_and_remembered_for_a_while(self, world: World) -> None:
        key = new_key()
        for _ in range(3):
            assert await world.directory.look_up(key.digest) is None
        assert len(world.reader.looked_up) == 1
        world.clock.now += 10
        assert await world.directory.look_up(key.digest) is None
        assert len(world.reader.looked_up) == 2

    async def test_a_key_made_elsewhere_is_found_and_kept(self, world: World) -> None:
        key = await world.key()
        assert await world.directory.look_up(key.digest) is not None
        assert world.directory.find(key.digest) is not None

    async def test_a_key_refused_as_unknown_is_known_once_it_is_made(self, world: World) -> None:
        key = new_key()
        assert await world.directory.look_up(key.digest) is None
        await world.accounts.create_key("default", key, name="k", scopes={"chat"}, models=None)
        await world.directory.refresh()
        assert world.directory.find(key.digest) is not None

    async def test_many_who_ask_at_once_are_one_look_up(self, world: World) -> None:
        key = await world.key()
        found = await asyncio.gather(*(world.directory.look_up(key.digest) for _ in range(20)))
        assert all(identity is not None for identity in found)
        assert len(world.reader.looked_up) == 1

    async def test_so_many_in_a_second_and_no_more(self, world: World) -> None:
        for _ in range(5):
            assert await world.directory.look_up(new_key().digest) is None
        error = await refusal(world.directory, new_key())
        assert (error.reason, error.code, error.retry_after) == (Reason.OVERLOADED, "key_not_known_yet", 1.0)
        world.clock.now += 0.5
        assert await world.directory.look_up(new_key().digest) is None
        assert await world.directory.look_up(new_key().digest) is None
        assert (await refusal(world.directory, new_key())).code == "key_not_known_yet"

    async def test_what_was_found_before_a_change_is_not_kept(self, world: World) -> None:
        """The look-up reads an open key, then the key is disabled, and this is known before the look-up has ended."""
        key = await world.key()
        await world.directory.refresh()
        other = await world.key()
        world.reader.gate.clear()
        looking = asyncio.create_task(world.directory.look_up(other.digest))
        await world.reader.read.wait()
        await world.accounts.set_key_disabled(other.id, True)
        await world.directory.refresh()
        world.reader.gate.set()
        with pytest.raises(CallError, match="Incorrect API key"):
            await looking
        assert world.directory.find(key.digest) is not None


class TestAnOutage:
    async def test_known_keys_go_on_and_unknown_ones_are_asked_to_wait(self, world: World) -> None:
        key = await world.key()
        await world.directory.refresh()
        world.reader.gone = True
        assert world.directory.find(key.digest) is not None
        error = await refusal(world.directory, new_key())
        assert (error.reason, error.retry_after) == (Reason.OVERLOADED, 1.0)

    async def test_it_is_not_remembered_as_a_no(self, world: World) -> None:
        key = await world.key()
        world.reader.gone = True
        await refusal(world.directory, key)
        world.reader.gone = False
        assert await world.directory.look_up(key.digest) is not None

    async def test_a_change_of_our_own_is_known_later(self, world: World) -> None:
        key = await world.key()
        world.reader.gone = True
        await world.directory.catch_up()
        assert world.directory.find(key.digest) is None
        world.reader.gone = False
        await world.directory.catch_up()
        assert world.directory.find(key.digest) is not None
