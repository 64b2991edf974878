"""Who calls: by the certificate it shows, by a bearer token, or both; and what it may say of whom it calls for."""

from __future__ import annotations

import hmac
import inspect
import logging
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextvars import ContextVar
from hashlib import sha256
from typing import Any, Final, NamedTuple, TypeAlias

import grpc
import msgspec

from trestle.config import ConfigError, unset

log: Final = logging.getLogger("worker")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
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
caller: Final[ContextVar[Caller]] = ContextVar("caller", default=ANYBODY)
"""Of the call that is being served."""
_vouched: Final[ContextVar[list[_Known]]] = ContextVar("vouched")


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


class Door:
    """In the place of a server where services are added to it: their methods are looked up by name and not registered
    (gRPC's loop waits for a call to each registered method by itself, and every call pays for all of them), and each is
    for who may call.

    callers: None: anybody may. Not an interceptor, which would cost every call 50 µs more.
    """

    def __init__(self, server: grpc.aio.Server, callers: Callers | None = None) -> None:
        self._server = server
        self._callers = callers

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Adds services."""
        if self._callers is not None:
            handlers = [_Guarded(each, self._callers) for each in handlers]
        self._server.add_generic_rpc_handlers(tuple(handlers))

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Nothing: they are the same ones once more."""


class _Guarded(grpc.GenericRpcHandler):
    def __init__(self, inner: grpc.GenericRpcHandler, callers: Callers) -> None:
        self._inner = inner
        self._callers = callers
        self._known: dict[str, Any] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        details: Any = handler_call_details
        handler = self._known.get(details.method)
        if handler is None:
            inner = self._inner.service(details)
            if inner is None:
                return None
            handler = self._known[details.method] = _guarded(inner)
        vouched = self._callers.vouched(_token(details.invocation_metadata))
        if not vouched:
            return _turning_away
        _vouched.set(vouched)  # in the context of the task that serves the call
        return handler


def _guarded(handler: Any) -> Any:
    """The same handler, for who may call."""
    kind = f"{'stream' if handler.request_streaming else 'unary'}_{'stream' if handler.response_streaming else 'unary'}"
    inner: Any = getattr(handler, kind)

    async def answer(request: Any, context: Context) -> Any:
        await _admit(context)
        return await inner(request, context)

    async def answers(request: Any, context: Context) -> AsyncIterator[Any]:
        await _admit(context)
        async for each in inner(request, context):
            yield each

    return getattr(grpc, f"{kind}_rpc_method_handler")(
        answers if inspect.isasyncgenfunction(inner) else answer,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


async def _admit(context: Context) -> None:
    vouched = _vouched.get()
    uris, names = _shown(context) if any(each.asks_certificate for each in vouched) else ([], [])
    found = recognise(vouched, uris, names)
    if found is not None:
        caller.set(found)
    elif uris or names:
        await _refuse(context, grpc.StatusCode.PERMISSION_DENIED, f"{(uris or names)[0]} may not call.")
    else:
        await _refuse(context, grpc.StatusCode.UNAUTHENTICATED, "A certificate or a bearer token is needed.")


def _shown(context: Context) -> tuple[list[str], list[str]]:
    """The URIs and the DNS names, in lower case, of the certificate that the caller showed."""
    shown: Mapping[str, Iterable[bytes]] = context.auth_context()
    return (
        [uri.decode("utf-8", "replace") for uri in shown.get("peer_uri", ())],
        [name.decode("utf-8", "replace").lower() for name in shown.get("peer_dns", ())],
    )


async def _turn_away(requests: object, context: Context) -> None:
    await _refuse(context, grpc.StatusCode.UNAUTHENTICATED, "The bearer token is missing or unknown.")


async def _refuse(context: Context, status: grpc.StatusCode, message: str) -> None:
    given = dict(context.invocation_metadata() or ()).get("x-request-id", "")
    log.warning("a call from %s is refused: %s", context.peer(), message, extra={"request_id": given, "account": ""})
    await context.abort(status, message)


# One that takes a stream, whatever the method does: so nothing of the request is read.
_turning_away: Final[Any] = grpc.stream_unary_rpc_method_handler(_turn_away)


def _token(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    for name, value in metadata or ():
        if name == "authorization" and isinstance(value, str) and value[: len(_BEARER)].lower() == _BEARER:
            return value[len(_BEARER) :].strip()
    return ""


def _digest(token: str) -> bytes:
    return sha256(token.encode()).digest()
