"""What gateways share: one Redis (or Valkey), by its URL."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as BrokenError
from redis.exceptions import RedisError

from trestle.config import ConfigError

PASSWORD_VARIABLE: Final = "REDIS_PASSWORD"  # noqa: S105 (a variable's name)
UNREACHABLE: Final = (RedisError, OSError, TimeoutError)
"""What its methods raise while it cannot be reached."""
_TIMEOUT: Final = 1.0
"""Seconds. A new connection takes some turns of the event loop: with less, limits would not hold for gateways that are
busy."""


def connect(url: str, environment: Mapping[str, str] = os.environ, timeout: float = _TIMEOUT) -> Redis:
    """A client that connects when it is asked, and gives up on an answer after so many seconds. Raises `ConfigError`
    for what is no URL of Redis."""
    try:
        return Redis.from_url(
            url,
            password=environment.get(PASSWORD_VARIABLE) or None,
            socket_timeout=timeout,
            socket_connect_timeout=_TIMEOUT,
            # A connection that broke while it was idle is no reason to give up. What timed out is not asked twice.
            retry=Retry(NoBackoff(), 1, supported_errors=(BrokenError,)),
        )
    except ValueError as error:
        raise ConfigError(f"gateway.redis: {error}") from None
