"""Session events over gRPC: `trestle.v1.SessionService`, on a listener of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, TypeAlias

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from gateway.auth import Keyring
from gateway.identity import CHAT
from gateway.openai.fields import invalid
from gateway.sessions import Sessions, event_id
from trestle.config import cannot_listen
from trestle.errors import DETAILS_KEY, CallError
from trestle.logs import failure
from trestle.tls import ServerFiles, server_credentials
from trestle.v1 import session_pb2, session_service_pb2, session_service_pb2_grpc

log = logging.getLogger("gateway")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
SERVICE: Final = session_service_pb2.DESCRIPTOR.services_by_name["SessionService"].full_name
_STATUSES: Final = {code.value[0]: code for code in grpc.StatusCode}
_LONGEST_ID: Final = 128
_GRACE: Final = 1.0


class SessionServicer(session_service_pb2_grpc.SessionServiceServicer):
    """keyring: the keys that open the gateway now."""

    def __init__(self, sessions: Sessions, keyring: Callable[[], Keyring]) -> None:
        self._sessions = sessions
        self._keyring = keyring

    async def WatchSession(
        self, request: session_pb2.WatchSessionRequest, context: Context
    ) -> AsyncIterator[session_pb2.WatchSessionResponse]:
        try:
            account = await self._account(context)
            if not 0 < len(request.session) <= _LONGEST_ID:
                raise invalid("session", "Invalid value for 'session': it must be 1 to 128 characters.")
            after = event_id(request.after)
        except CallError as error:
            given = dict(context.invocation_metadata() or ()).get("x-request-id", "")
            extra = {**failure(error), "request_id": given, "account": ""}
            log.info("a watch of a session is refused", extra=extra)
            await context.abort(_STATUSES[error.status], error.text, ((DETAILS_KEY, error.to_status()),))
        async for events in self._sessions.read(account, request.session, after):
            for event in events:
                yield session_pb2.WatchSessionResponse(event=event)

    async def _account(self, context: Context) -> str:
        shown = {
            name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)
        }
        identity = await self._keyring().admit(shown.get("authorization"), shown.get("x-api-key"))
        identity.demand(CHAT)
        return identity.account


class SessionListener:
    """One address. Make it inside a running loop."""

    def __init__(self, servicer: SessionServicer) -> None:
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        session_service_pb2_grpc.add_SessionServiceServicer_to_server(servicer, self._server)
        self._checks = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._checks, self._server)

    async def listen(self, address: str, tls: ServerFiles | None) -> str:
        """Serves from now on; returns the address as it turned out. Raises `ConfigError`."""
        try:
            if tls is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, server_credentials(tls))
        except RuntimeError:
            raise cannot_listen("gateway.grpc", address) from None
        await self._server.start()
        for name in ("", SERVICE):
            await self._checks.set(name, health_pb2.HealthCheckResponse.SERVING)
        return f"{address.rpartition(':')[0]}:{port}"

    async def close(self) -> None:
        """Ends; who still listens is told so."""
        await self._checks.enter_graceful_shutdown()
        await asyncio.shield(self._server.stop(_GRACE))
