"""Opens the credentials that accounts bring along. What is opened stays with the call it came with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from trestle.config import ConfigError, unset
from trestle.errors import CallError, Reason

# Of requests that come without the id of an account: an open gateway's, or its configuration's keys'.
_DEFAULT_ACCOUNT: Final = "default"


class Vault(Protocol):
    """Who can open what was sealed for this worker."""

    def open(self, account: str, upstream: str, sealed: bytes) -> str:
        """The secret. Raises `CallError` (PERMISSION_DENIED) for what is not for this account and upstream."""


class _NoVault:
    def open(self, account: str, upstream: str, sealed: bytes) -> str:
        raise CallError(
            Reason.PERMISSION_DENIED, "This worker takes no credentials of accounts.", code="credential_not_accepted"
        )


NO_VAULT: Final[Vault] = _NoVault()


class KeyVault:
    """worker: the gateway's name of this one. keys: private, the newest first."""

    def __init__(self, worker: str, keys: Sequence[bytes]) -> None:
        self._worker = worker
        self._keys = keys

    def open(self, account: str, upstream: str, sealed: bytes) -> str:
        """See `Vault`."""
        from trestle.sealed import Purpose, SealError, unseal  # noqa: PLC0415 (imported by who has keys)

        try:
            return unseal(self._keys, Purpose(account or _DEFAULT_ACCOUNT, self._worker, upstream), sealed)
        except SealError as error:
            raise CallError(Reason.PERMISSION_DENIED, str(error), code="credential_unusable", param="model") from None


def vault_of(worker: str, variables: Sequence[str], environment: Mapping[str, str] = os.environ) -> Vault:
    """With the keys of these environment variables. Raises `ConfigError` for one that is not set, or holds none."""
    if not variables:
        return NO_VAULT
    from trestle.sealed import SealError, key_bytes  # noqa: PLC0415

    keys: list[bytes] = []
    for i, variable in enumerate(variables):
        where = f"worker.seal_key_envs[{i}]"
        text = environment.get(variable, "")
        if not text:
            raise ConfigError(f"{where}: {unset(variable)}")
        try:
            keys.append(key_bytes(text))
        except SealError as error:
            raise ConfigError(f"{where}: {variable} {error}") from None
    return KeyVault(worker, keys)
