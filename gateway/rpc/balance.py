"""Which of several replicas is asked.  Pure."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Final, Protocol, TypeAlias, TypeVar

SESSION: Final = "x-session-id"


class Replica(Protocol):
    """key: which one it is, also to other gateways. weight: how much of the load it is to have, beside the others';
    zero while that is not known."""

    key: bytes

    @property
    def weight(self) -> float: ...


R = TypeVar("R", bound=Replica)
Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]


def session_of(metadata: Metadata) -> bytes:
    """Of the call that has this metadata; empty for none."""
    for name, value in metadata:
        if name == SESSION:
            return value if isinstance(value, bytes) else value.encode()
    return b""


class InTurn:
    """Each in turn."""

    def __init__(self) -> None:
        self._at = -1

    def __call__(self, replicas: Sequence[R], metadata: Metadata) -> R:
        """replicas: at least one."""
        self._at = at = (self._at + 1) % len(replicas)
        return replicas[at]


class BySession:
    """The same one for all calls of a session, for every gateway alike, as long as it is there; when one comes or goes,
    no session moves but those that it gets or had (rendezvous hashing). Calls of no session: each in turn."""

    def __init__(self) -> None:
        self._others = InTurn()

    def __call__(self, replicas: Sequence[R], metadata: Metadata) -> R:
        """replicas: at least one."""
        session = session_of(metadata)
        if not session:
            return self._others(replicas, metadata)
        return max(replicas, key=lambda replica: blake2b(session, key=replica.key, digest_size=8).digest())


class ByLoad:
    """Each in proportion to its weight, spread as evenly as that allows. One of no known weight counts as the mean."""

    def __init__(self) -> None:
        self._credit: dict[bytes, float] = {}

    def __call__(self, replicas: Sequence[R], metadata: Metadata) -> R:
        """replicas: at least one."""
        weights = [replica.weight for replica in replicas]
        known = [weight for weight in weights if weight]
        mean = sum(known) / len(known) if known else 1.0
        shares = [weight or mean for weight in weights]
        whole = sum(shares)
        before = self._credit
        credit = {
            each.key: before.get(each.key, 0.0) + share / whole for each, share in zip(replicas, shares, strict=True)
        }
        chosen = max(replicas, key=lambda replica: credit[replica.key])
        credit[chosen.key] -= 1
        self._credit = credit
        return chosen


Policy: TypeAlias = InTurn | BySession | ByLoad
POLICIES: Final[dict[str, Callable[[], Policy]]] = {
    "round_robin": InTurn,
    "session": BySession,
    "load": ByLoad,
}

_DOUBLE: Final = struct.Struct("<d")
_CPU, _RATE, _ERRORS, _UTILIZATION = 1, 6, 7, 9
_MOST_WEIGHT: Final = 1e12
_LONGEST_VARINT: Final = 63


def weight_of(report: bytes) -> float:
    """What a load report (`xds.data.orca.v3.OrcaLoadReport`, serialized) makes of a replica's weight, as gRFC A58 says:
    its rate by its utilization, to which its errors by its rate are added; zero where it does not say both. Raises
    ValueError for what is no message."""
    doubles: dict[int, float] = {}
    at = 0
    try:
        while at < len(report):
            tag, at = _varint(report, at)
            kind = tag & 7
            if kind == 1:
                doubles[tag >> 3] = _DOUBLE.unpack_from(report, at)[0]
                at += 8
            elif kind == 0:
                _, at = _varint(report, at)
            elif kind == 2:
                size, at = _varint(report, at)
                at += size
            elif kind == 5:
                at += 4
            else:
                raise ValueError("no message")
    except (IndexError, struct.error):
        raise ValueError("it is cut") from None
    if at > len(report):
        raise ValueError("it is cut")
    rate, errors = doubles.get(_RATE, 0.0), doubles.get(_ERRORS, 0.0)
    utilization = doubles.get(_UTILIZATION, 0.0)
    if not utilization > 0:
        utilization = doubles.get(_CPU, 0.0)
    if not (0 < rate < math.inf and 0 < utilization < math.inf):
        return 0.0
    return min(rate / (utilization + (errors / rate if errors > 0 else 0.0)), _MOST_WEIGHT)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > _LONGEST_VARINT:
            raise ValueError("no message")
