"""The workers as the gateway sees them: one channel each."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from grpc_health.v1 import health_pb2

from gateway.rpc.call import Metadata
from gateway.rpc.channel import Channel
from gateway.rpc.method import Method
from gateway.rpc.names import Name, on_the_wire, parse
from gateway.settings import GatewaySettings, WorkerEndpoint, endpoints
from trestle.capacity import Capacity
from trestle.config import ConfigError, unset
from trestle.errors import CallError
from trestle.tls import ClientTls, Pem, read_client
from trestle.v1 import (
    chat_pb2,
    completion_pb2,
    embedding_pb2,
    model_pb2,
    moderation_pb2,
    worker_service_pb2,
)

SERVICE: Final = worker_service_pb2.DESCRIPTOR.services_by_name["WorkerService"].full_name
_HEALTH: Final = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


@dataclass(frozen=True, slots=True)
class Link:
    """What a channel is made of. name: where it leads. pem: None where it is in the clear; context: made of the same.
    token: empty for none."""

    endpoint: WorkerEndpoint
    name: Name
    max_message_bytes: int
    pem: Pem | None
    context: ssl.SSLContext | None = field(compare=False)
    token: str


def read_links(settings: GatewaySettings, environment: Mapping[str, str] = os.environ) -> dict[str, Link]:
    """Every worker by name, with what stands in its files and its token's variable now. Raises `ConfigError`."""
    links: dict[str, Link] = {}
    for name, endpoint in endpoints(settings).items():
        where = f"gateway.workers.{name}"
        token = environment.get(endpoint.token_env, "")
        if endpoint.token_env and not token:
            variable = endpoint.token_env
            raise ConfigError(f"{where}.token_env: {unset(variable)}")
        if not (token.isascii() and token.isprintable()):
            raise ConfigError(f"{where}.token_env: {endpoint.token_env} holds what no header may (a line's end?)")
        try:
            leads_to = parse(endpoint.address)
        except ValueError as error:
            raise ConfigError(f"{where}: {endpoint.address!r} is no address of a worker: {error}") from None
        pem, context = (None, None) if endpoint.tls is None else _read_tls(f"{where}.tls", endpoint.tls)
        links[name] = Link(endpoint, leads_to, settings.max_message_bytes, pem, context, token)
    return links


def _read_tls(where: str, tls: ClientTls) -> tuple[Pem, ssl.SSLContext]:
    """Raises `ConfigError`."""
    try:
        on_the_wire(tls.name)
    except ValueError as error:
        raise ConfigError(f"{where}.name: {tls.name!r} is no name of a server: {error}") from None
    return read_client(where, tls)


class Worker:
    """One worker's channel, and the room there is for calls to it. link: what it is made of. metadata: what goes with
    each call."""

    def __init__(self, name: str, link: Link) -> None:
        endpoint = link.endpoint
        self.name = name
        self.link = link
        self.metadata: Metadata = (("authorization", f"Bearer {link.token}"),) if link.token else ()
        self._capacity = (
            Capacity(f"The worker {name}", endpoint.max_calls, endpoint.queue, endpoint.queue_timeout)
            if endpoint.max_calls
            else None
        )
        self._channel = Channel(
            link.name,
            SERVICE,
            context=link.context,
            tls_name="" if endpoint.tls is None else endpoint.tls.name,
            balance=endpoint.balance,
            resolve_interval=endpoint.resolve_interval,
            max_message_bytes=link.max_message_bytes,
        )
        self.chat = self._method("Chat", chat_pb2.ChatResponse)
        self.complete = self._method("Complete", completion_pb2.CompleteResponse)
        self.embed = self._method("Embed", embedding_pb2.EmbedResponse)
        self.moderate = self._method("Moderate", moderation_pb2.ModerateResponse)
        self._list_models = self._method("ListModels", model_pb2.ListModelsResponse)
        self._health = self._channel.method(_HEALTH, "Check", health_pb2.HealthCheckResponse)

    def _method(self, name: str, response_type: Any) -> Method:
        return self._channel.method(SERVICE, name, response_type)

    @property
    def waiting(self) -> int:
        """How many calls wait until there is room for them."""
        return 0 if self._capacity is None else self._capacity.waiting

    async def acquire(self) -> None:
        """Returns once there is room for a call. Raises `CallError` (OVERLOADED)."""
        if self._capacity is not None:
            await self._capacity.acquire()

    def release(self) -> None:
        """The call has ended."""
        if self._capacity is not None:
            self._capacity.release()

    async def list_models(self, timeout: float) -> Iterable[model_pb2.Model]:
        """What the worker can reach now; timeout in seconds. Raises `CallError`."""
        call = self._list_models(model_pb2.ListModelsRequest(), timeout, self.metadata)
        try:
            response: model_pb2.ListModelsResponse = await call.single()
        finally:
            call.cancel()
        return response.models

    async def serves(self, timeout: float) -> bool:
        """Whether the worker says so itself (grpc.health.v1), asked once; timeout in seconds."""
        call = self._health(health_pb2.HealthCheckRequest(), timeout, ())
        try:
            answer = await call.single()
        except CallError:
            return False
        finally:
            call.cancel()
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def close(self) -> None:
        await self._channel.close()
