"""Session events over gRPC: `trestle.v1.SessionService`, on a listener of its own."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from gateway.auth import Keyring
from gateway.identity import CHAT
from gateway.openai.fields import invalid
from gateway.sessions import Sessions, event_id
from trestle.errors import DETAILS_KEY, CallError
from trestle.logs import failure
from trestle.rpc.call import Call
from trestle.rpc.method import Method, methods_of
from trestle.rpc.server import Server
from trestle.tls import ServerFiles, grpc_context
from trestle.v1 import session_pb2, session_service_pb2

log = logging.getLogger("gateway")
SERVICE: Final = session_service_pb2.DESCRIPTOR.services_by_name["SessionService"].full_name
_STATUSES: Final = {code.value[0]: code for code in grpc.StatusCode}
_LONGEST_ID: Final = 128
_GRACE: Final = 1.0


class SessionServicer:
    """keyring: the keys that open the gateway now."""

    def __init__(self, sessions: Sessions, keyring: Callable[[], Keyring]) -> None:
        self._sessions = sessions
        self._keyring = keyring

    def methods(self) -> dict[str, Method]:
        """For the server, by path."""
        asked, told = session_pb2.WatchSessionRequest, session_pb2.WatchSessionResponse
        return {f"/{SERVICE}/WatchSession": Method(self._watch, asked.FromString, told.SerializeToString)}

    async def _watch(
        self, request: session_pb2.WatchSessionRequest, call: Call
    ) -> AsyncIterator[session_pb2.WatchSessionResponse]:
        try:
            account = await self._account(call)
            if not 0 < len(request.session) <= _LONGEST_ID:
                raise invalid("session", "Invalid value for 'session': it must be 1 to 128 characters.")
            after = event_id(request.after)
        except CallError as error:
            given = dict(call.metadata).get("x-request-id", "")
            extra = {**failure(error), "request_id": given, "account": ""}
            log.info("a watch of a session is refused", extra=extra)
            await call.abort(_STATUSES[error.status], error.text, ((DETAILS_KEY, error.to_status()),))
        async for events in self._sessions.read(account, request.session, after):
            for event in events:
                yield session_pb2.WatchSessionResponse(event=event)

    async def _account(self, call: Call) -> str:
        shown = {name: value for name, value in call.metadata if isinstance(value, str)}
        identity = await self._keyring().admit(shown.get("authorization"), shown.get("x-api-key"))
        identity.demand(CHAT)
        return identity.account


class SessionListener:
    """One address. Make it inside a running loop."""

    def __init__(self, servicer: SessionServicer) -> None:
        self._server = Server(name="gateway")
        self._server.add(servicer.methods())
        self._checks = health.aio.HealthServicer()
        self._server.add(methods_of(health_pb2_grpc.add_HealthServicer_to_server, self._checks))

    async def listen(self, address: str, tls: ServerFiles | None) -> str:
        """Serves from now on; returns the address as it turned out. Raises `ConfigError`."""
        for name in ("", SERVICE):
            await self._checks.set(name, health_pb2.HealthCheckResponse.SERVING)
        return await self._server.listen("gateway.grpc", address, None if tls is None else grpc_context(tls))

    async def close(self) -> None:
        """Ends; who still listens is told so."""
        await self._checks.enter_graceful_shutdown()
        await self._server.stop(_GRACE)
