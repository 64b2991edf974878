"""Accounts, their keys and names in memory, so that no request waits for a database; how memory keeps up with it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol

import msgspec

from gateway.auth import wrong_key
from gateway.identity import Identity
from gateway.limits.policy import Holder, Limits
from gateway.namespace import NOTHING_ADDED, Namespace, namespace_of
from gateway.settings import DirectorySettings
from gateway.store.records import Account, Delta, Key
from trestle.errors import CallError, Reason
from trestle.logs import first_line

log = logging.getLogger("gateway")
_PAUSE: Final = 2.0
_UNLIMITED: Final = Limits()
_MOST_UNKNOWN: Final = 10_000
"""How many unknown keys are remembered as such."""
_MOST_LOOK_UPS: Final = 32
"""How many unknown keys are looked up at a time."""


class Source(Protocol):
    """The database, as `gateway.store.reader.StoreReader` reads it."""

    def everything(self) -> Awaitable[Delta]: ...
    def since(self, version: int) -> Awaitable[Delta | None]: ...
    def key(self, digest: bytes) -> Awaitable[tuple[Key, Account] | None]: ...


class _Held(msgspec.Struct, frozen=True, gc=False):
    """A key in memory. expires: Unix seconds, zero for never."""

    id: str
    identity: Identity
    disabled: bool
    expires: int


class Directory:
    """What the gateway knows of accounts. A change in the database is known here `interval` seconds later; while the
    database cannot be reached, what is known stays.

    clock: seconds that only go forward, for what is remembered for a while.
    """

    def __init__(
        self, source: Source, settings: DirectorySettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._source = source
        self._settings = settings
        self._clock = clock
        self._version = -1
        self._keys: dict[bytes, _Held] = {}
        self._digests: dict[str, bytes] = {}  # by the key's id
        self._closed: set[str] = set()  # accounts that are disabled
        self._namespaces: dict[str, Namespace] = {}
        self._unknown: dict[bytes, float] = {}  # until when it is not looked up again; the oldest first
        self._looking: dict[bytes, asyncio.Task[Identity | None]] = {}
        self._allowance = settings.lookups_per_second
        self._allowed_at = clock()
        self._refreshing = asyncio.Lock()
        self._failing = False
        # Thousands of keys with the same rights share them.
        self._scopes: dict[tuple[str, ...], frozenset[str]] = {}
        self._models: dict[tuple[str, ...], frozenset[str]] = {}
        self._accounts: dict[str, str] = {}
        self._limits: dict[Limits, Limits] = {}
        self._holders: dict[str, Holder] = {}  # accounts that are limited, by id

    async def load(self) -> None:
        """Reads everything. Raises `CallError` where it cannot."""
        self._apply(await self._source.everything())

    async def run(self) -> None:
        """Keeps up, until cancelled."""
        while True:
            await asyncio.sleep(self._settings.interval)
            try:
                await self.refresh()
            except CallError as error:
                if not self._failing:
                    why = first_line(error.__cause__)
                    log.warning("accounts and keys are not kept up: %s (%s)", error.message, why)
                self._failing = True
            except Exception:
                # One bad row must not end the keeping up for good.
                if not self._failing:
                    log.exception("accounts and keys are not kept up")
                self._failing = True
            else:
                if self._failing:
                    log.info("accounts and keys are kept up again")
                self._failing = False

    async def pause(self) -> None:
        """Returns when nothing is asked of the database, or after a moment: who ends `run` then breaks off no query,
        whose connection nobody would close."""
        try:
            async with asyncio.timeout(_PAUSE), self._refreshing:
                pass
        except TimeoutError:
            pass

    async def refresh(self) -> None:
        """Takes in what changed. Raises `CallError` while the database cannot be reached."""
        async with self._refreshing:
            delta = await self._source.since(self._version)
            if delta is not None:
                self._apply(delta)

    async def catch_up(self) -> None:
        """`refresh`, after a change of our own that is safe in the database: should the database be gone since, the
        change is known later."""
        try:
            await self.refresh()
        except CallError as error:
            log.info("a change is not known here yet: %s", error.message)

    def find(self, digest: bytes) -> Identity | None:
        """Whose the key is, from memory alone; None for one that is not held. Raises `CallError` for a key that is
        disabled or has expired (UNAUTHENTICATED), or whose account is disabled (PERMISSION_DENIED)."""
        held = self._keys.get(digest)
        return None if held is None else self._opened(held)

    def namespace(self, account: str) -> Namespace:
        """What the account added, by its id."""
        return self._namespaces.get(account, NOTHING_ADDED)

    def holder(self, account: str) -> Holder | None:
        """The account's own limits, by its id; None where it has none."""
        return self._holders.get(account)

    async def look_up(self, digest: bytes) -> Identity | None:
        """Asks the database for a key that is not held, once however many ask, and remembers one that it does not know
        for a while. Raises `CallError` as `find`, and OVERLOADED where it cannot be known now."""
        known_until = self._unknown.get(digest)
        if known_until is not None:
            if self._clock() < known_until:
                return None
            del self._unknown[digest]
        task = self._looking.get(digest)
        if task is None:
            self._spend()
            task = asyncio.create_task(self._look_up(digest))
            self._looking[digest] = task
            task.add_done_callback(lambda ended: self._looked(digest, ended))
        # Others wait for it too: the first one's leaving must not end it.
        return await asyncio.shield(task)

    async def _look_up(self, digest: bytes) -> Identity | None:
        version = self._version
        found = await self._source.key(digest)
        if self._version != version:
            # What changed meanwhile may be this key, and memory newer than what was found.
            held = self._keys.get(digest)
            if held is not None:
                return self._opened(held)
        if found is None:
            if len(self._unknown) >= _MOST_UNKNOWN:
                del self._unknown[next(iter(self._unknown))]
            self._unknown[digest] = self._clock() + self._settings.remember_unknown
            return None
        key, account = found
        held = self._held(key)
        if self._version == version:
            self._keep(digest, held)
            self._keep_account(account)
        if account.disabled:
            raise _account_disabled()
        return self._opened(held)

    def _looked(self, digest: bytes, ended: asyncio.Task[Identity | None]) -> None:
        del self._looking[digest]
        if not ended.cancelled():
            ended.exception()  # seen, should nobody be left who waits for it

    def _spend(self) -> None:
        """One look-up of those that a second has. Raises `CallError` (OVERLOADED) where none is left: a key that was
        made a moment ago is known by itself a moment later."""
        instant = self._clock()
        rate = self._settings.lookups_per_second
        self._allowance = min(rate, self._allowance + (instant - self._allowed_at) * rate)
        self._allowed_at = instant
        if self._allowance < 1 or len(self._looking) >= _MOST_LOOK_UPS:
            raise CallError(
                Reason.OVERLOADED,
                "Too many unknown API keys are being looked up; try again.",
                code="key_not_known_yet",
                retry_after=1.0,
            )
        self._allowance -= 1

    def _opened(self, held: _Held) -> Identity:
        if held.disabled:
            raise wrong_key()
        if held.expires and held.expires <= time.time():
            raise CallError(Reason.UNAUTHENTICATED, "This API key has expired.", code="expired_api_key")
        if held.identity.account in self._closed:
            raise _account_disabled()
        return held.identity

    def _apply(self, delta: Delta) -> None:
        if delta.whole:
            self._keys.clear()
            self._digests.clear()
            self._closed.clear()
            self._holders.clear()
            self._namespaces.clear()
            self._unknown.clear()
        for account in delta.accounts:
            self._keep_account(account)
        for key in delta.keys:
            self._keep(key.digest, self._held(key))
        for id in delta.gone:  # noqa: A001
            digest = self._digests.pop(id, None)
            if digest is not None:
                del self._keys[digest]
        for id, names in delta.names.items():  # noqa: A001
            self._namespaces[id] = namespace_of(names)
        self._version = delta.version

    def _keep(self, digest: bytes, held: _Held) -> None:
        self._keys[digest] = held
        self._digests[held.id] = digest
        self._unknown.pop(digest, None)

    def _keep_account(self, account: Account) -> None:
        (self._closed.add if account.disabled else self._closed.discard)(account.id)
        if account.limits == _UNLIMITED:
            self._holders.pop(account.id, None)
        else:
            self._holders[account.id] = Holder(f"account:{account.id}", account.id, account.limits)

    def _held(self, key: Key) -> _Held:
        models = None if key.models is None else _shared(self._models, key.models)
        account = self._accounts.setdefault(key.account, key.account)
        holder = None
        if key.limits != _UNLIMITED:
            holder = Holder(f"key:{key.id}", account, self._limits.setdefault(key.limits, key.limits))
        identity = Identity(account, key.id, _shared(self._scopes, key.scopes), models, holder)
        return _Held(key.id, identity, key.disabled, key.expires)


def _shared(known: dict[tuple[str, ...], frozenset[str]], values: Iterable[str]) -> frozenset[str]:
    words = tuple(values)
    found = known.get(words)
    if found is None:
        found = known[words] = frozenset(words)
    return found


def _account_disabled() -> CallError:
    return CallError(Reason.PERMISSION_DENIED, "This account is disabled.", code="account_disabled")
