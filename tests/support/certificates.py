"""A certificate authority that lives as long as a test."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY: Final = timedelta(days=1)


@dataclass(frozen=True)
class Files:
    """A certificate and its key, as PEM files; ca: that of the authority which signed it."""

    certificate: Path
    key: Path
    ca: Path

    def server(self, client_ca: Path | None = None) -> dict[str, Any]:
        """The settings of a server that shows it."""
        named = {"certificate": str(self.certificate), "key": str(self.key)}
        return {**named, "client_ca": str(client_ca)} if client_ca else named

    def client(self, ca: Path | None = None, **more: str) -> dict[str, Any]:
        """The settings of a client that shows it. ca: whom it trusts, if not its own authority."""
        return {"certificate": str(self.certificate), "key": str(self.key), "ca": str(ca or self.ca), **more}

    def context(self, ca: Path | None = None) -> ssl.SSLContext:
        """Of an HTTP client that shows it. ca: whom it trusts, if not its own authority."""
        context = ssl.create_default_context(cafile=str(ca or self.ca))
        context.load_cert_chain(self.certificate, self.key)
        return context

    def take(self, other: Files) -> None:
        """Becomes the other one: new files in the place of the old."""
        for old, new in ((self.certificate, other.certificate), (self.key, other.key)):
            copy = old.with_suffix(".new")
            copy.write_bytes(new.read_bytes())
            copy.replace(old)


def credentials_of(shown: Files | None, ca: Path) -> grpc.ChannelCredentials:
    """Of a caller that shows this certificate, or none, and trusts that authority."""
    if shown is None:
        return grpc.ssl_channel_credentials(ca.read_bytes())
    return grpc.ssl_channel_credentials(ca.read_bytes(), shown.key.read_bytes(), shown.certificate.read_bytes())


class Authority:
    """Signs certificates. folder: for its files. ca: its own certificate."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        own = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        self.ca = folder / f"{name}.pem"
        self.ca.write_bytes(_pem(own.sign(self._key, hashes.SHA256())))
        self._issued = 0

    def issue(self, *names: str, expired: bool = False, days: int = 9) -> Files:
        """A certificate for these: DNS names, IP addresses, and URIs where there is `://`. days: that it is good
        for."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = [_general(name) for name in names]
        builder = self._builder(x509.Name([]), key, -1 if expired else days)
        signed = builder.add_extension(x509.SubjectAlternativeName(alternatives), True).sign(self._key, hashes.SHA256())
        self._issued += 1
        stem = self._folder / f"{self.ca.stem}-{self._issued}"
        files = Files(stem.with_suffix(".crt"), stem.with_suffix(".key"), self.ca)
        files.certificate.write_bytes(_pem(signed))
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: int = 9
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 9 * _DAY)
            .not_valid_after(now + days * _DAY)
        )


def _general(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
