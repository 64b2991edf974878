"""Targets in gRPC's words, and the addresses behind them."""

from __future__ import annotations

import asyncio

import pytest
from support.dns import HOSTS, NameServer
from support.upstream import PATIENCE

from gateway.rpc.names import Address, addresses, on_the_wire, parse


@pytest.mark.parametrize(
    ("target", "host", "port", "authority"),
    [
        ("worker:50051", "worker", 50051, "worker:50051"),
        ("worker", "worker", 443, "worker"),
        ("127.0.0.1:1", "127.0.0.1", 1, "127.0.0.1:1"),
        ("[::1]:65535", "::1", 65535, "[::1]:65535"),
        ("[::1]", "::1", 443, "[::1]"),
        ("::1", "::1", 443, "::1"),
        ("dns:worker:50051", "worker", 50051, "worker:50051"),
        ("dns:///worker.ns.svc:50051", "worker.ns.svc", 50051, "worker.ns.svc:50051"),
    ],
)
def test_names_to_look_up(target: str, host: str, port: int, authority: str) -> None:
    name = parse(target)
    assert (name.host, name.port, name.authority) == (host, port, authority)
    assert (name.server, name.fixed) == ("", ())


def test_names_that_are_not_ascii() -> None:
    assert on_the_wire(parse("b\u00fccher.test:50051").authority) == b"xn--bcher-kva.test:50051"


@pytest.mark.parametrize("server", ["127.0.0.1", "127.0.0.1:5353", "::1", "[::1]", "[::1]:5353"])
def test_who_is_to_be_asked(server: str) -> None:
    name = parse(f"dns://{server}/worker.test:50051")
    assert (name.server, name.host, name.port, name.authority) == (server, "worker.test", 50051, "worker.test:50051")


@pytest.mark.parametrize(
    ("target", "fixed"),
    [
        ("ipv4:127.0.0.1:1", (("127.0.0.1", 1),)),
        ("ipv4:127.0.0.1:1,127.0.0.2", (("127.0.0.1", 1), ("127.0.0.2", 443))),
        ("ipv6:[::1]:1,[::2]:2", (("::1", 1), ("::2", 2))),
        ("ipv6:%5B::1%5D:1", (("::1", 1),)),
        ("unix:a.sock", (("a.sock", 0),)),
        ("unix:/tmp/a.sock", (("/tmp/a.sock", 0),)),
        ("unix:///tmp/a.sock", (("/tmp/a.sock", 0),)),
        ("unix-abstract:a", (("\0a", 0),)),
    ],
)
async def test_addresses_that_stand_there(target: str, fixed: tuple[Address, ...]) -> None:
    name = parse(target)
    assert name.fixed == fixed
    assert await addresses(name) == fixed


@pytest.mark.parametrize(
    "target",
    [
        "", ":1", "dns:", "dns:///", "http://worker:1", "worker:", "worker:x", "worker:0", "worker:65536", "worker:-1",
        "worker:\u0661", "ipv4:", "ipv4:worker:1", "ipv4:[::1]:1", "ipv6:127.0.0.1:1", "ipv4:127.0.0.1:1,", "unix:",
        "unix-abstract:", "\u00fc..b:1", "dns://ns.test/worker:1", "dns://127.0.0.1:x/worker:1",
    ],
)  # fmt: skip
def test_what_is_no_target(target: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(target)


async def test_what_this_machine_knows() -> None:
    assert await addresses(parse("127.0.0.1:7")) == [("127.0.0.1", 7)]
    found = await addresses(parse("localhost:7"))
    assert ("127.0.0.1", 7) in found or ("::1", 7) in found
    assert len(set(found)) == len(found)


async def test_a_name_server_that_is_named() -> None:
    async with NameServer(*HOSTS) as names:
        name = parse(names.target(7))
        assert sorted(await addresses(name)) == [(host, 7) for host in HOSTS]
        names.addresses = [HOSTS[1]]
        assert await addresses(name) == [(HOSTS[1], 7)]
        names.addresses = []
        with pytest.raises(OSError, match="does not resolve it: NoAnswer"):
            await addresses(name)


@pytest.mark.parametrize("host", ["none.invalid", "a..b", "x" * 64])
async def test_names_that_nobody_knows(host: str) -> None:
    with pytest.raises((OSError, UnicodeError)):
        await addresses(parse(f"{host}:1"))


async def test_a_look_up_may_be_given_up() -> None:
    async with NameServer() as names:
        silent = parse(names.target(7))
        asked = asyncio.Event()
        names.datagram_received = lambda data, addr: asked.set()  # type: ignore[method-assign]
        asking = asyncio.create_task(addresses(silent))
        async with asyncio.timeout(PATIENCE):
            await asked.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
