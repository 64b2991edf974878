"""Who calls: by the certificate it shows, by a bearer token, or both; and what it may say of whom it calls for."""

from __future__ import annotations

import hmac
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

import grpc
import msgspec

from trestle.config import ConfigError, unset
from trestle.rpc.call import Call
from trestle.rpc.connection import Refusal

log: Final = logging.getLogger("worker")
ANY: Final = "*"
_BEARER: Final = "bearer "


class CallerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody who may call. name: what the log calls it. identities: one of these must stand in its certificate, as a
    URI (`spiffe://DOMAIN/PATH`) or a DNS name; `*`: whatever worker.tls.client_ca signed. token_envs: environment
    variables with bearer tokens, of which it must show one. Where there are both it needs both. gateway: what it says
    of accounts, sessions and clients counts."""

    name: str
    identities: list[str] = []
    token_envs: list[str] = []
    gateway: bool = False


class Caller(NamedTuple):
    """Who a call is from. name: empty where nobody asks. gateway: it speaks for others."""

    name: str
    gateway: bool


ANYBODY: Final = Caller("", gateway=True)


class _Known:
    """One who may call."""

    def __init__(self, settings: CallerSettings, tokens: Iterable[str]) -> None:
        self._caller = Caller(settings.name, settings.gateway)
        self._any = ANY in settings.identities
        self._uris = {each for each in settings.identities if "://" in each}
        self._names = {each.lower() for each in settings.identities if "://" not in each and each != ANY}
        self._digests = [_digest(token) for token in tokens]
        self.asks_certificate = bool(settings.identities)

    def vouched(self, digest: bytes) -> bool:
        """Whether the token is one of ours, or none is asked for; how long that takes says nothing of ours."""
        equal = [hmac.compare_digest(each, digest) for each in self._digests]
        return not equal or any(equal)

    def recognised(self, uris: list[str], names: list[str]) -> Caller | None:
        """As who, by the certificate; None where that says somebody else."""
        if not self.asks_certificate:
            return self._caller
        if not self._uris.isdisjoint(uris) or not self._names.isdisjoint(names):
            return self._caller
        own = next(iter((*uris, *names)), "")
        return Caller(own, self._caller.gateway) if self._any and own else None


class Callers:
    """Those who may call, in the order of the file. Raises `ConfigError` for a token's variable that is not set."""

    def __init__(self, settings: Sequence[CallerSettings], environment: Mapping[str, str] = os.environ) -> None:
        self._known: list[_Known] = []
        for i, each in enumerate(settings):
            for variable in each.token_envs:
                if not environment.get(variable):
                    where = f"worker.callers[{i}].token_envs"
                    raise ConfigError(f"{where}: {unset(variable)}")
            self._known.append(_Known(each, (environment[variable] for variable in each.token_envs)))

    def become(self, others: Callers) -> None:
        """From now on these may call."""
        self._known = others._known

    def admit(self, call: Call) -> Refusal | None:
        """Writes down who calls, or says why it may not."""
        vouched = self.vouched(_token(call.metadata))
        if not vouched:
            return _refused(call, grpc.StatusCode.UNAUTHENTICATED, "The bearer token is missing or unknown.")
        uris, names = _shown(call) if any(each.asks_certificate for each in vouched) else ([], [])
        call.caller = recognise(vouched, uris, names)
        if call.caller is not None:
            return None
        if uris or names:
            return _refused(call, grpc.StatusCode.PERMISSION_DENIED, f"{(uris or names)[0]} may not call.")
        return _refused(call, grpc.StatusCode.UNAUTHENTICATED, "A certificate or a bearer token is needed.")

    def vouched(self, token: str) -> list[_Known]:
        """Who it may be by the token; empty for none."""
        digest = _digest(token)
        return [each for each in self._known if each.vouched(digest)]


def recognise(known: Iterable[_Known], uris: list[str], names: list[str]) -> Caller | None:
    """The first of these that the certificate is of. uris, names: what it says, names in lower case."""
    for each in known:
        found = each.recognised(uris, names)
        if found is not None:
            return found
    return None


def _shown(call: Call) -> tuple[list[str], list[str]]:
    """The URIs and the DNS names, in lower case, of the certificate that the caller showed."""
    shown: Iterable[tuple[str, str]] = call.certificate().get("subjectAltName", ())
    return (
        [value for kind, value in shown if kind == "URI"],
        [value.lower() for kind, value in shown if kind == "DNS"],
    )


def _refused(call: Call, status: grpc.StatusCode, message: str) -> Refusal:
    given = next((value for name, value in call.metadata if name == "x-request-id"), "")
    log.warning("a call from %s is refused: %s", call.peer(), message, extra={"request_id": given, "account": ""})
    return status, message


def _token(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    for name, value in metadata:
        if name == "authorization" and isinstance(value, str) and value[: len(_BEARER)].lower() == _BEARER:
            return value[len(_BEARER) :].strip()
    return ""


def _digest(token: str) -> bytes:
    return sha256(token.encode()).digest()
