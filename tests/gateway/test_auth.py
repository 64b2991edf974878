"""Who may call."""

from __future__ import annotations

import hashlib
import sys

import pytest

from gateway.auth import Keyring
from gateway.identity import DEFAULT_ACCOUNT, NOBODY, Identity
from trestle.errors import CallError, Reason

KEYS = Keyring(
    {
        hashlib.sha256(key.encode()).digest(): Identity(DEFAULT_ACCOUNT, name)
        for key, name in (("one", "first"), ("två", "second"))
    }
)


@pytest.mark.parametrize(
    ("authorization", "api_key", "name"),
    [
        ("Bearer one", None, "first"),
        ("bearer one", None, "first"),
        ("Bearer   one  ", None, "first"),
        (None, "två", "second"),
        ("Bearer one", "två", "first"),
        ("Basic b25l", "två", "second"),
        ("Bearer ", "one", "first"),
    ],
)
async def test_a_right_key(authorization: str | None, api_key: str | None, name: str) -> None:
    assert (await KEYS.admit(authorization, api_key)).key == name


@pytest.mark.parametrize(
    ("authorization", "api_key", "code"),
    [
        (None, None, "missing_api_key"),
        ("", "", "missing_api_key"),
        ("one", None, "missing_api_key"),
        ("Bearer", None, "missing_api_key"),
        ("Bearer two", None, "invalid_api_key"),
        ("Bearer ONE", None, "invalid_api_key"),
        (None, "first", "invalid_api_key"),
        ("Bearer two", "one", "invalid_api_key"),
        (None, "\udce9", "invalid_api_key"),
    ],
)
async def test_none_or_a_wrong_one(authorization: str | None, api_key: str | None, code: str) -> None:
    with pytest.raises(CallError) as caught:
        await KEYS.admit(authorization, api_key)
    assert (caught.value.reason, caught.value.code) == (Reason.UNAUTHENTICATED, code)


async def test_many_keys_cost_a_request_what_one_does() -> None:
    async def events(count: int) -> int:
        keyring = Keyring({hashlib.sha256(b"%d" % i).digest(): Identity(DEFAULT_ACCOUNT, f"{i}") for i in range(count)})
        seen = 0

        def note(*_: object) -> None:
            nonlocal seen
            seen += 1

        sys.setprofile(note)
        try:
            identity = await keyring.admit("Bearer 0", None)
        finally:
            sys.setprofile(None)
        assert identity.key == "0"
        return seen

    assert await events(10_000) == await events(1)


async def test_an_open_gateway_asks_nobody() -> None:
    assert await Keyring(None).admit(None, None) is NOBODY
    assert await Keyring(None).admit("Bearer whatever", None) is NOBODY


async def test_a_gateway_without_keys_admits_nobody() -> None:
    with pytest.raises(CallError):
        await Keyring({}).admit("Bearer one", None)
