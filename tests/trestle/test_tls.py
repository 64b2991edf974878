"""Certificates in files that change."""

from __future__ import annotations

import contextlib
import logging
import ssl
from pathlib import Path

import pytest
from support.certificates import Authority, Files

from trestle.config import ConfigError
from trestle.tls import ClientTls, Handshakes, ServerFiles, ServerTls, client_files, grpc_context, read_client


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def shows(context: ssl.SSLContext, files: Files) -> bool:
    """Whether a server of it shows that certificate, and has the key to it."""
    trusting = ssl.create_default_context(cafile=str(files.ca))
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(back, there, server_hostname="a.test")
    server = context.wrap_bio(there, back, server_side=True)
    for side in (client, server, client, server):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return client.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(files.certificate.read_text())


def test_files_are_read_again_when_they_change(authority: Authority) -> None:
    shown = authority.issue("a.test")
    files = ServerFiles("worker.tls", ServerTls(certificate=str(shown.certificate), key=str(shown.key)))
    before = files.context
    assert shows(before, shown)
    assert not files.look()
    shown.take(authority.issue("a.test"))
    assert files.look()
    assert shows(files.context, shown)
    assert not shows(before, shown)
    assert not files.look()


def test_what_is_wrong_stays_out_until_the_files_change_again(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    shown, other = authority.issue("a.test"), authority.issue("a.test")
    files = ServerFiles("worker.tls", ServerTls(certificate=str(shown.certificate), key=str(shown.key)))
    before = files.context
    shown.certificate.write_bytes(other.certificate.read_bytes())
    for _ in range(3):
        assert not files.look()
    assert files.context is before
    assert caplog.text.count("the new certificate is refused, the old one stays: worker.tls") == 1
    shown.key.write_bytes(other.key.read_bytes())
    assert files.look()
    assert shows(files.context, other)
    assert "worker.tls: the certificate has been read anew" in caplog.text


def test_a_file_that_is_gone_for_a_moment(authority: Authority) -> None:
    shown = authority.issue("a.test")
    files = ServerFiles("worker.tls", ServerTls(certificate=str(shown.certificate), key=str(shown.key)))
    away = shown.key.with_suffix(".away")
    shown.key.rename(away)
    assert not files.look()
    away.rename(shown.key)
    assert files.look()


@pytest.mark.parametrize("key", ["client_ca", "certificate", "key"])
def test_a_file_that_cannot_be_used_is_named(authority: Authority, key: str, tmp_path: Path) -> None:
    shown = authority.issue("a.test")
    good = {"certificate": str(shown.certificate), "key": str(shown.key), "client_ca": str(authority.ca)}
    with pytest.raises(ConfigError, match=rf"worker\.tls\.{key}: /gone\.pem: No such file or directory"):
        ServerFiles("worker.tls", ServerTls(**{**good, key: "/gone.pem"}))
    empty = tmp_path / "empty.pem"
    empty.touch()
    with pytest.raises(ConfigError, match=r"worker\.tls.*empty\.pem"):
        ServerFiles("worker.tls", ServerTls(**{**good, key: str(empty)}))


def test_a_clients_files(authority: Authority) -> None:
    shown = authority.issue("a.test")
    tls = ClientTls(ca=str(shown.ca), certificate=str(shown.certificate), key=str(shown.key))
    pem, context = read_client("gateway.workers.w.tls", tls)
    assert context.check_hostname
    assert pem == (shown.certificate.read_bytes(), shown.key.read_bytes(), shown.ca.read_bytes())
    assert client_files(tls) == [shown.ca, shown.certificate, shown.key]
    assert read_client("gateway.workers.w.tls", ClientTls())[0] == (b"", b"", b"")
    assert client_files(ClientTls()) == []
    for half in (ClientTls(key=str(shown.key)), ClientTls(certificate=str(shown.certificate))):
        with pytest.raises(ConfigError, match=r"gateway\.workers\.w\.tls: certificate and key go together"):
            read_client("gateway.workers.w.tls", half)
    with pytest.raises(ConfigError, match=r"gateway\.workers\.w\.tls\.ca: .* holds no certificate"):
        read_client("gateway.workers.w.tls", ClientTls(ca=str(shown.key)))


def test_handshakes_that_fail_often_are_counted(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    shown = authority.issue("a.test")
    files = ServerFiles("worker.tls", ServerTls(certificate=str(shown.certificate), key=str(shown.key)))
    came = ssl.MemoryBIO()
    came.write(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(ssl.SSLError) as failed:
        grpc_context(files).wrap_bio(came, ssl.MemoryBIO(), server_side=True).do_handshake()
    handshakes = Handshakes("worker.tls")
    for now in (100.0, 101.0, 102.0, 109.9, 110.0, 115.0, 300.0):
        handshakes.tell(failed.value, now)
    assert [vars(record)["times"] for record in caplog.records] == [1, 1, 4, 2]
    assert {vars(record)["why"] for record in caplog.records} == {"HTTP_REQUEST"}
