"""The workers as the gateway sees them: one channel each."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.calls import Metadata, Method, error_of
from gateway.settings import GatewaySettings, WorkerEndpoint, endpoints
from trestle.capacity import Capacity
from trestle.config import ConfigError, unset
from trestle.tls import Pem, channel_credentials, read_client
from trestle.v1 import (
    chat_pb2,
    completion_pb2,
    embedding_pb2,
    model_pb2,
    moderation_pb2,
    worker_service_pb2,
    worker_service_pb2_grpc,
)

SERVICE: Final = worker_service_pb2.DESCRIPTOR.services_by_name["WorkerService"].full_name
# Of several addresses of a name, one that says it does not serve (it is about to stop) is asked no more.
_HEALTH: Final = f'"healthCheckConfig":{{"serviceName":"{SERVICE}"}}'
_BALANCE: Final[Mapping[str, str]] = {
    "round_robin": '{"round_robin":{}}',
    "session": '{"ring_hash_experimental":{"requestHashHeader":"x-session-id"}}',
    "load": (
        '{"weighted_round_robin":{"enableOobLoadReport":true,"oobReportingPeriod":"1s","blackoutPeriod":"2s",'
        '"weightExpirationPeriod":"30s"}}'
    ),
}


@dataclass(frozen=True, slots=True)
class Link:
    """What a channel is made of. pem: None where it is in the clear. token: empty for none."""

    endpoint: WorkerEndpoint
    max_message_bytes: int
    pem: Pem | None
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
        pem = None if endpoint.tls is None else read_client(f"{where}.tls", endpoint.tls)
        links[name] = Link(endpoint, settings.max_message_bytes, pem, token)
    return links


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
        self._channel = _channel(link)
        self.chat = self._method("Chat", chat_pb2.ChatResponse)
        self.complete = self._method("Complete", completion_pb2.CompleteResponse)
        self.embed = self._method("Embed", embedding_pb2.EmbedResponse)
        self.moderate = self._method("Moderate", moderation_pb2.ModerateResponse)
        stub: Any = worker_service_pb2_grpc.WorkerServiceStub(self._channel)
        self._list_models = stub.ListModels
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)

    def _method(self, name: str, response_type: Any) -> Method:
        return Method(self._channel, SERVICE, name, response_type)

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
        try:
            response: model_pb2.ListModelsResponse = await self._list_models(
                model_pb2.ListModelsRequest(), timeout=timeout, metadata=self.metadata
            )
        except grpc.aio.AioRpcError as error:
            raise error_of(error.code().value[0], error.details(), error.trailing_metadata()) from None
        return response.models

    async def serves(self, timeout: float) -> bool:
        """Whether the worker says so itself (grpc.health.v1), asked once; timeout in seconds."""
        try:
            answer = await self._health.Check(health_pb2.HealthCheckRequest(), timeout=timeout)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def close(self) -> None:
        await self._channel.close()


def _channel(link: Link) -> grpc.aio.Channel:
    endpoint, tls = link.endpoint, link.endpoint.tls
    options = [
        ("grpc.max_receive_message_length", link.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.http2.bdp_probe", 0),  # its growing windows hold megabytes of a stream that nobody reads
        # Without a policy only what the worker has never seen is tried again, as when it just said goodbye.
        ("grpc.enable_retries", 1),
        ("grpc.service_config", f'{{"loadBalancingConfig":[{_BALANCE[endpoint.balance]}],{_HEALTH}}}'),
        ("grpc.dns_min_time_between_resolutions_ms", round(endpoint.resolve_interval * 1000)),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.ping_timeout_ms", 10_000),  # of a process that hangs, whose kernel still answers
        # A worker that comes back is found within a second.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 10_000),  # despite its name: the time that one attempt has
        ("grpc.max_reconnect_backoff_ms", 1_000),
    ]
    if tls is None or link.pem is None:
        return grpc.aio.insecure_channel(endpoint.address, options)
    if tls.name:
        options.append(("grpc.ssl_target_name_override", tls.name))
    return grpc.aio.secure_channel(endpoint.address, channel_credentials(link.pem), options)
