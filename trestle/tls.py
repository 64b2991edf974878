"""Certificates: what a server shows and a client trusts, in PEM files that may change while they are used."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from trestle.config import ConfigError
from trestle.watch import Stamp, stamp

log: Final = logging.getLogger("trestle")
_TRIES: Final = 3
_QUIET: Final = 10.0
"""Seconds between two lines about handshakes that fail: who tries again and again is not to fill the log."""


class ServerTls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a server shows: its certificate, with the chain behind it, and the key to it, PEM files. client_ca: who must
    have signed what clients show; empty: they need show nothing. New files count for the next connection."""

    certificate: str
    key: str
    client_ca: str = ""


class ClientTls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a client knows its server, and shows who it is itself, in PEM files. ca: who must have signed the server's
    certificate; empty: one of the authorities that this machine trusts. name: what that certificate must be for; empty:
    the name in the address. certificate, key: its own; empty: it shows none."""

    ca: str = ""
    name: str = ""
    certificate: str = ""
    key: str = ""


class Pem(NamedTuple):
    """What stands in the files; empty for a file that is not named."""

    certificate: bytes
    key: bytes
    ca: bytes


class ServerFiles:
    """A server's files, looked at with each new connection. where: the path of the settings. minimum: the oldest TLS
    that it speaks. context: made of what stood in the files when they were last right. refused: whether what stands
    there now is not. Raises `ConfigError` for files that cannot be used."""

    def __init__(self, where: str, tls: ServerTls, minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2) -> None:
        self.refused = False
        self.where = where
        self._tls = tls
        self._minimum = minimum
        self._paths = [Path(name) for name in (tls.certificate, tls.key, tls.client_ca) if name]
        self._known = _stamps(self._paths)
        self.context = self._read()

    def look(self) -> bool:
        """Reads the files again if they have changed; whether `context` is another one now. Files that cannot be used
        are logged, and what was known stays."""
        found = _stamps(self._paths)
        if found == self._known:
            return False
        self._known = found
        try:
            self.context = self._read()
        except ConfigError as error:
            self.refused = True
            log.error("the new certificate is refused, the old one stays: %s", error)
            return False
        self.refused = False
        log.info("%s: the certificate has been read anew", self.where)
        return True

    def _read(self) -> ssl.SSLContext:
        tls = self._tls
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self._minimum
        _read(self.where, context, tls.certificate, tls.key, "client_ca", tls.client_ca)
        if tls.client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
            # A session taken up again is not verified again, and an authority may be trusted no longer.
            context.num_tickets = 0
            context.options |= ssl.OP_NO_TICKET
        return context


def http_context(files: ServerFiles) -> ssl.SSLContext:
    """For a server of HTTP/1.1, now and with files that change."""
    return _renewed(files, "http/1.1")


def grpc_context(files: ServerFiles) -> ssl.SSLContext:
    """For a server of gRPC on the event loop, now and with files that change. Handshakes that fail are logged."""
    context = _renewed(files, "h2")
    context.sslobject_class = _told_of(Handshakes(files.where))
    return context


class Handshakes:
    """Those of a server that failed. where: the path of its settings."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._times = 0
        self._again = 0.0

    def tell(self, error: ssl.SSLError, now: float) -> None:
        """One more has. now: of the monotonic clock. A line says why the last one did, and how many since the last
        line."""
        self._times += 1
        if now >= self._again:
            why = error.reason
            if isinstance(error, ssl.SSLCertVerificationError):
                why = error.verify_message
            extra = {"where": self._where, "why": why, "times": self._times}
            log.warning("a TLS handshake failed", extra=extra)
            self._times, self._again = 0, now + _QUIET


def _told_of(failed: Handshakes) -> type[ssl.SSLObject]:
    """Event loops say nothing of a handshake that fails, and do not let the protocol know."""

    class Told(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError as error:
                failed.tell(error, time.monotonic())
                raise

    return Told


def _renewed(files: ServerFiles, protocol: str) -> ssl.SSLContext:
    first = files.context
    first.set_alpn_protocols([protocol])

    def renew(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
        if files.look():
            files.context.set_alpn_protocols([protocol])
        if files.context is not first:
            connection.context = files.context

    first.sni_callback = renew  # called for every connection, whatever it names
    return first


def read_client(where: str, tls: ClientTls) -> tuple[Pem, ssl.SSLContext]:
    """What stands in a client's files, and what a client of gRPC makes of it. Raises `ConfigError` for files that
    cannot be used."""
    if bool(tls.certificate) != bool(tls.key):
        raise ConfigError(f"{where}: certificate and key go together")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    pem = _read(where, context, tls.certificate, tls.key, "ca", tls.ca)
    if not tls.ca:
        context.load_default_certs()
    return pem, context


def client_files(tls: ClientTls) -> list[Path]:
    """The files that a client's settings name."""
    return [Path(name) for name in (tls.ca, tls.certificate, tls.key) if name]


def _read(where: str, context: ssl.SSLContext, certificate: str, key: str, ca_key: str, ca: str) -> Pem:
    """What stands in the files, tried with `context`, which then has it. ca_key: how the settings name that file."""
    paths = [Path(name) for name in (certificate, key, ca) if name]
    for _ in range(_TRIES):
        before = _stamps(paths)
        pem = Pem(
            _content(f"{where}.certificate", certificate),
            _content(f"{where}.key", key),
            _content(f"{where}.{ca_key}", ca),
        )
        if certificate:
            try:
                context.load_cert_chain(certificate, key, password="")  # of a key that is enciphered: it asks nobody
            except (OSError, ValueError) as error:
                raise ConfigError(f"{where}: {certificate} and {key} are no certificate and its key: {error}") from None
        if before == _stamps(paths):
            break
    if ca:
        try:
            context.load_verify_locations(cadata=pem.ca.decode("ascii"))
        except (ssl.SSLError, ValueError):
            raise ConfigError(f"{where}.{ca_key}: {ca} holds no certificate") from None
    return pem


def _content(where: str, name: str) -> bytes:
    if not name:
        return b""
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise ConfigError(f"{where}: {name}: {error.strerror}") from None


def _stamps(paths: Iterable[Path]) -> list[Stamp | None]:
    return [stamp(path) for path in paths]
