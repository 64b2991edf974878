"""Who may call: keys from the configuration, held as digests, and the keys of accounts."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import string
from collections.abc import Awaitable, Mapping
from typing import Final, NamedTuple, Protocol

from gateway.identity import DEFAULT_ACCOUNT, NOBODY, Identity
from gateway.limits.policy import Holder, Limits
from gateway.settings import AdminSettings, GatewaySettings
from trestle.config import ConfigError, unset
from trestle.errors import CallError, Reason

_ALPHABET: Final = string.ascii_letters + string.digits
_LOWER: Final = string.ascii_lowercase + string.digits
_PREFIX_LENGTH: Final = 10
_SECRET_LENGTH: Final = 43  # of 62 signs: 256 bits
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_OURS: Final = re.compile(rf"tr_[a-z0-9]{{{_PREFIX_LENGTH}}}_[A-Za-z0-9]{{{_SECRET_LENGTH}}}")


class NewKey(NamedTuple):
    """A key as it is shown once. id: `tr_` and its prefix, by which it is named. digest: what is kept of it."""

    id: str
    text: str
    digest: bytes


def new_key() -> NewKey:
    """A key that nobody can guess, so that a plain digest keeps it."""
    name = "tr_" + "".join(secrets.choice(_LOWER) for _ in range(_PREFIX_LENGTH))
    text = f"{name}_{''.join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))}"
    return NewKey(name, text, digest_of(text))


def digest_of(key: str) -> bytes:
    """SHA-256 of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


class AccountKeys(Protocol):
    """The keys of accounts; see `gateway.directory.Directory`. `find` asks memory alone and gives None for a key it
    does not hold; `look_up` may ask further. Both raise `CallError` for a key that no longer opens anything."""

    def find(self, digest: bytes) -> Identity | None: ...
    def look_up(self, digest: bytes) -> Awaitable[Identity | None]: ...


class Keyring:
    """The keys that open the gateway. configured: SHA-256 of each key of the file -> whose it is; None: everybody may
    call. accounts: the keys of accounts, where there are any."""

    def __init__(self, configured: Mapping[bytes, Identity] | None, accounts: AccountKeys | None = None) -> None:
        self._open = configured is None
        self._configured = dict(configured or {})
        self._accounts = accounts

    async def admit(self, authorization: str | None, api_key: str | None) -> Identity:
        """Whose the key shown is, from `Authorization: Bearer` or else `x-api-key`.

        Raises `CallError` (UNAUTHENTICATED) for none or a wrong one. A key of an account counts at an open gateway too,
        and a wrong one of that form is refused there; anything else is nobody's.
        """
        key = _shown(authorization, api_key)
        if self._accounts is not None and _OURS.fullmatch(key):
            digest = digest_of(key)
            identity = self._accounts.find(digest) or await self._accounts.look_up(digest)
            if identity is None:
                raise wrong_key()
            return identity
        return NOBODY if self._open else self._of_file(key)

    def _of_file(self, key: str) -> Identity:
        """The time it takes tells at most of a digest, which nobody can choose: a key is not to be had from it."""
        if not key:
            raise CallError(
                Reason.UNAUTHENTICATED,
                "You did not provide an API key: send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'.",
                code="missing_api_key",
            )
        found = self._configured.get(digest_of(key))
        if found is None:
            raise wrong_key()
        return found


def wrong_key() -> CallError:
    """The key shown opens nothing."""
    return CallError(Reason.UNAUTHENTICATED, "Incorrect API key provided.", code="invalid_api_key")


def _shown(authorization: str | None, api_key: str | None) -> str:
    if authorization is not None:
        scheme, _, rest = authorization.partition(" ")
        if scheme.lower() == "bearer" and rest.strip():
            return rest.strip()
    return api_key or ""


def configured_keys(
    settings: GatewaySettings, environment: Mapping[str, str] = os.environ
) -> dict[bytes, Identity]:
    """SHA-256 of each key of the file -> whose it is. Raises `ConfigError` for a digest that is none or a variable that
    is not set."""
    keys: dict[bytes, Identity] = {}
    for i, key in enumerate(settings.keys):
        if bool(key.sha256) == bool(key.key_env):
            raise ConfigError(f"gateway.keys[{i}]: needs either sha256 or key_env")
        models = None if key.models is None else frozenset(key.models)
        holder = Holder(f"key:{key.name}", DEFAULT_ACCOUNT, key.limits) if key.limits != Limits() else None
        identity = Identity(DEFAULT_ACCOUNT, key.name, frozenset(key.scopes), models, holder)
        if key.sha256:
            if not _SHA256.fullmatch(key.sha256.lower()):
                raise ConfigError(f"gateway.keys[{i}].sha256: is not 64 hexadecimal digits")
            keys[bytes.fromhex(key.sha256)] = identity
            continue
        keys[_read_digest(f"gateway.keys[{i}].key_env", key.key_env, environment)] = identity
    return keys


def admin_keys(settings: AdminSettings, environment: Mapping[str, str] = os.environ) -> dict[bytes, Identity]:
    """SHA-256 of the key that the API for accounts asks for. Raises `ConfigError` where its variable is not set."""
    digest = _read_digest("gateway.admin.key_env", settings.key_env, environment)
    return {digest: Identity(DEFAULT_ACCOUNT, "admin", frozenset())}


def _read_digest(path: str, variable: str, environment: Mapping[str, str]) -> bytes:
    text = environment.get(variable, "")
    if not text:
        raise ConfigError(f"{path}: {unset(variable)}")
    return digest_of(text)
