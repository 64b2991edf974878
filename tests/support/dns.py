"""A name server for one test: UDP on loopback, one list of addresses for whatever name is asked for."""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from types import TracebackType
from typing import Final

HOSTS: Final = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
"""Addresses of this machine (Linux) that are free for replicas to listen at."""
_A: Final = 1
_HEADER: Final = 12


class NameServer(asyncio.DatagramProtocol):
    """Use as an async context manager. addresses: its answer now. asked: how often it was asked for IPv4 addresses."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.asked = 0
        self._transport: asyncio.DatagramTransport | None = None

    async def __aenter__(self) -> NameServer:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._transport is not None
        self._transport.close()

    def target(self, port: int) -> str:
        """What gRPC is to be given: the name, asked for here, and the port behind it."""
        assert self._transport is not None
        host, own = self._transport.get_extra_info("sockname")
        return f"dns://{host}:{own}/worker.test:{port}"

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answers one question (RFC 1035)."""
        end = _HEADER
        while data[end]:
            end += 1 + data[end]
        question = data[_HEADER : end + 5]
        (kind,) = struct.unpack(">H", data[end + 1 : end + 3])
        addresses = self.addresses if kind == _A else []
        self.asked += kind == _A
        records = b"".join(
            # The name of the question, type A, class IN, good for no time at all.
            struct.pack(">HHHIH", 0xC00C, _A, 1, 0, 4) + ipaddress.ip_address(address).packed
            for address in addresses
        )
        header = data[:2] + struct.pack(">HHHHH", 0x8580, 1, len(addresses), 0, 0)
        assert self._transport is not None
        self._transport.sendto(header + question + records, addr)
