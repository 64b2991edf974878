"""Where a worker is: a target in gRPC's words (https://github.com/grpc/grpc/blob/master/doc/naming.md), and what
addresses are behind it now."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

Address = tuple[str, int]
"""Host and port; of a socket in the file system its path, and zero."""

_DEFAULT_PORT: Final = 443
_PATIENCE: Final = 10.0


@dataclass(frozen=True, slots=True)
class Name:
    """host: the name to be looked up; empty where the addresses are fixed. server: who is to be asked for it; empty:
    whoever this machine asks. authority: whom requests are for."""

    host: str
    port: int
    server: str
    fixed: tuple[Address, ...]
    authority: str


def parse(target: str) -> Name:
    """Raises ValueError for what is no target."""
    scheme, colon, rest = target.partition(":")
    if colon and scheme in ("unix", "unix-abstract"):
        path = rest.removeprefix("//") if scheme == "unix" else f"\0{rest}"
        if len(path) < 2:
            raise ValueError("a path is missing")
        return Name("", 0, "", ((path, 0),), "localhost")
    if colon and scheme in ("ipv4", "ipv6"):
        fixed = tuple(_split(each) for each in unquote(rest).split(","))
        for host, _ in fixed:
            if ipaddress.ip_address(host).version != int(scheme[-1]):
                raise ValueError(f"{host} is no address of {'IPv' + scheme[-1]}")
        return Name("", 0, "", fixed, unquote(rest).split(",")[0])
    server = ""
    if colon and scheme == "dns":
        if rest.startswith("//"):
            server, _, rest = rest.removeprefix("//").partition("/")
            if server:
                ipaddress.ip_address(_server(server)[0])
        target = rest
    host, port = _split(target)
    if not host or "/" in host:
        raise ValueError("it is HOST:PORT, dns:///HOST:PORT, ipv4:A:PORT,B:PORT, ipv6:[A]:PORT or unix:PATH")
    on_the_wire(target)
    return Name(host, port, server, (), target)


def on_the_wire(name: str) -> bytes:
    """A name as requests have it. Raises ValueError for one that they cannot have."""
    return name.encode("ascii" if name.isascii() else "idna")


def _split(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon or "]" in port:
        host, port = text, str(_DEFAULT_PORT)
    elif ":" in host and not host.startswith("["):
        host, port = text, str(_DEFAULT_PORT)  # an address of IPv6 alone
    if not (port.isascii() and port.isdecimal() and 0 < int(port) <= 0xFFFF):
        raise ValueError(f"{port!r} is no port")
    return host.strip("[]"), int(port)


def _server(text: str) -> Address:
    """A name server, whose port may be left out."""
    alone = "]:" not in text and text.count(":") != 1
    return _split(f"[{text.strip('[]')}]:53" if alone else text)


async def addresses(name: Name) -> Sequence[Address]:
    """Those behind the name now, each once. Raises OSError."""
    if name.fixed:
        return name.fixed
    if name.server:
        return await _asked(name)
    found = await asyncio.get_running_loop().getaddrinfo(name.host, name.port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((str(each[4][0]), name.port) for each in found))


async def _asked(name: Name) -> Sequence[Address]:
    import dns.asyncresolver  # noqa: PLC0415 (for who names a server alone)
    import dns.exception  # noqa: PLC0415

    host, port = _server(name.server)
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port, resolver.lifetime = [host], port, _PATIENCE
    try:
        answers = await resolver.resolve_name(name.host)
    except dns.exception.DNSException as error:
        raise OSError(f"{name.server} does not resolve it: {type(error).__name__}") from None
    return [(each, name.port) for each in answers.addresses()]
