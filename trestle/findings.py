"""What a service finds when it looks at itself for `trestle doctor`: one finding for each thing that it looked at."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
import time
from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

_CONNECT_SECONDS: Final = 5.0
_SOON: Final = 30 * 86_400


class Finding(msgspec.Struct, frozen=True):
    """status: `ok`; `warn`, it serves and something is not as it should be; `fail`. what: was looked at, a path of the
    configuration where there is one. said: what was found. todo: what helps; empty for `ok`. No secret is in any."""

    status: Literal["ok", "warn", "fail"]
    what: str
    said: str
    todo: str = ""


def tell(findings: list[Finding]) -> None:
    """Prints them for who asked, a line of JSON each."""
    for finding in findings:
        print(msgspec.json.encode(finding).decode())


def count(models: Sized) -> str:
    """How many models."""
    return f"{len(models)} model{'' if len(models) == 1 else 's'}"


def port(what: str, address: str) -> Finding:
    """Whether the address can be listened on."""
    host, _, number = address.rpartition(":")
    host = host.strip("[]")
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host, int(number)))
    except OSError as error:
        todo = "end what listens there (ss -ltnp shows it), if it is not this service itself; or choose another port"
        return Finding("warn", what, f"{address}: {error.strerror}", todo)
    return Finding("ok", what, f"{address} is free")


def decoded(file: str) -> Mapping[str, Any]:
    """A PEM file's first certificate, as `ssl` tells of a peer's. Raises `OSError`."""
    # The only decoder that Python brings along; it has had no public name for fifteen years.
    told: Mapping[str, Any] = ssl._ssl._test_decode_cert(file)  # type: ignore[attr-defined]  # noqa: SLF001
    return told


def certificate(what: str, file: str, key: str) -> Finding:
    """Whether a PEM file's first certificate is good now, and will be for a while, and that file is the key to it."""
    try:
        told = decoded(file)
    except OSError as error:
        said = f"{file}: {error.strerror or 'is no certificate'}"
        return Finding("fail", what, said, "put a certificate there, in PEM")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file, key, password="")
    except (OSError, ValueError):
        return Finding("fail", what, f"{file}: {key} is not the key to it", "put two files there that go together")
    ends = ssl.cert_time_to_seconds(told["notAfter"])
    begins = ssl.cert_time_to_seconds(told["notBefore"])
    names = ", ".join(value for _, value in told.get("subjectAltName", ())) or "no name"
    said = f"{file}: for {names}, until {told['notAfter']}"
    if ends < time.time():
        return Finding("fail", what, f"{said}: it has expired", "renew it; new files are taken without a restart")
    if begins > time.time():
        return Finding("fail", what, f"{file}: good from {told['notBefore']} on", "look at the clock, or wait")
    if ends - time.time() < _SOON:
        return Finding("warn", what, f"{said}: soon", "renew it; new files are taken without a restart")
    return Finding("ok", what, said)


def open_files(what: str, needed: int) -> Finding:
    """Whether the process may have so many connections."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # it takes what it may
    if most != resource.RLIM_INFINITY and most < needed:
        todo = f"ulimit -Hn {needed} before the start (LimitNOFILE= of systemd), or a lower {what}"
        return Finding("warn", what, f"{needed} connections, and the process may open {most} files", todo)
    return Finding("ok", what, f"{needed} connections, and the process may open {most} files")


def folder(what: str, path: Path) -> Finding:
    """Whether files can be made in it."""
    there = next((each for each in (path, *path.absolute().parents) if each.exists()), path)
    try:
        probe = there / f".trestle-doctor-{time.time_ns()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        todo = "let the service's user write there, or name another folder"
        return Finding("fail", what, f"{path}: {error.strerror}", todo)
    return Finding("ok", what, f"{path} can be written")


async def reached(what: str, host: str, number: int, *, tls: bool) -> Finding:
    """Whether somebody answers there: the name, the port, and the TLS handshake."""
    where = f"{host}:{number}"
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            await loop.getaddrinfo(host, number, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError):
        return Finding("fail", what, f"{host}: the name is not known", "look at base_url, and at the name server")
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, number, ssl=tls or None)
    except ssl.SSLError as error:
        said = f"{where}: TLS fails: {error.reason or error}"
        return Finding("fail", what, said, "its certificate must be signed by an authority that this machine knows")
    except (OSError, TimeoutError) as error:
        said = f"{where}: {getattr(error, 'strerror', None) or 'nobody answers'}"
        return Finding("fail", what, said, "is it running, and may this machine reach it (firewall, NetworkPolicy)?")
    writer.close()
    with contextlib.suppress(OSError, ssl.SSLError):
        await writer.wait_closed()
    return Finding("ok", what, f"{where} answers{' over TLS' if tls else ''}")
