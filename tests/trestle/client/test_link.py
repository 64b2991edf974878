"""What a client is made of, and what cannot be."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from trestle.client import Client, SyncClient, Tls, chat_request
from trestle.client.link import ignored_params


@pytest.fixture(params=[Client, SyncClient])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize(
    "target",
    [
        "localhost:50051", "127.0.0.1:50051", "dns:///localhost:50051", "dns:127.0.0.1", "[::1]:50051", "unix:/run/w",
        "ipv4:127.0.0.1:1,127.0.0.1:2", "ipv6:[::1]:50051",
    ],
)  # fmt: skip
def test_a_token_in_plaintext_stays_on_this_machine(target: str, kind: Any) -> None:
    kind(target, token="t0ken")


@pytest.mark.parametrize(
    "target",
    [
        "worker:50051", "dns:///worker:50051", "10.0.0.1:50051", "ipv4:127.0.0.1:1,10.0.0.1:2", "localhost.evil:1",
        "dns://10.0.0.1/localhost:50051", "127.0.0.1.evil:1",
    ],
)  # fmt: skip
def test_and_goes_nowhere_else(target: str, kind: Any) -> None:
    with pytest.raises(ValueError, match="in plaintext: set tls"):
        kind(target, token="t0ken")
    kind(target, token="t0ken", tls=Tls())


@pytest.mark.parametrize("retries", [-1, 5])
def test_as_many_retries_as_grpc_knows(retries: int, kind: Any) -> None:
    with pytest.raises(ValueError, match="0 to 4"):
        kind("localhost:1", retries=retries)


def test_certificates_that_cannot_be_read(kind: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        kind("localhost:1", tls=Tls(ca=tmp_path / "none.pem"))
    with pytest.raises(ValueError, match="go together"):
        kind("localhost:1", tls=Tls(certificate=b"PEM"))


@pytest.mark.parametrize("value", ["", "a\nb", "é", "x" * 129])
@pytest.mark.parametrize("option", ["request_id", "session_id", "client_id", "account_id"])
def test_ids_that_cannot_travel(option: str, value: str) -> None:
    with SyncClient("localhost:1") as client, pytest.raises(ValueError, match=option):
        client.models(**{option: value})  # type: ignore[arg-type]


async def test_a_client_that_was_never_used() -> None:
    async with Client("localhost:1"):
        pass
    await Client("localhost:1").close()


def test_a_client_may_be_made_before_its_loop() -> None:
    client = Client("localhost:1", timeout=0.1)
    asyncio.run(client.close())


def test_nothing_is_called_where_no_loop_runs() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        Client("localhost:1").chat(chat_request("m", "Hello?"))


def test_names_that_no_header_can_hold() -> None:
    assert ignored_params((("x-trestle-ignored-params", "top_p,a%20%C3%A9,tools[0].b"),)) == (
        "top_p", "a é", "tools[0].b",
    )  # fmt: skip
    assert ignored_params(None) == ()
