"""What `trestle up` makes of a file that no service has checked yet."""

from __future__ import annotations

from typing import Any

import pytest

from trestle.cli.plan import Plan, client_key, credentials, families, is_open, plan

DOCUMENT: dict[str, Any] = {
    "gateway": {
        "auth": "keys",
        "keys": [{"name": "old", "sha256": "00"}, {"name": "dev", "key_env": "DEV"}, {"name": "ci", "key_env": "CI"}],
        "workers": {
            "openai": "127.0.0.1:50051",
            "local": "localhost:1",
            "far": "dns:///worker-far:50051",
            "echo": {"address": "[::1]:50054", "max_calls": 5},
            "sock": "unix:/run/trestle.sock",
        },
    },
    "worker": {
        "listen": "127.0.0.1:1",
        "openai": {
            "upstreams": {
                "a": {"base_url": "http://a", "credential_env": "A_KEY"},
                "b": {"base_url": "http://b", "credential_env": "B_KEY"},
                "again": {"base_url": "http://a", "credential_env": "A_KEY"},
                "free": {"base_url": "http://free"},
            }
        },
        "far": {
            "upstreams": {
                "f": {"base_url": "http://f", "credential_env": "FAR_KEY", "headers": {"x_env": "a header"}},
                "g": {"base_url": "http://g", "service_account_env": "FAR_ACCOUNT", "other_env": None},
            }
        },
    },
}


def test_workers_on_loopback_are_started_and_others_used_where_they_are() -> None:
    assert plan(DOCUMENT, {"A_KEY": "a", "B_KEY": "b"}) == Plan(
        here={
            "openai": "127.0.0.1:50051",
            "local": "localhost:1",
            "echo": "[::1]:50054",
            "sock": "unix:/run/trestle.sock",
        },
        elsewhere={"far": "dns:///worker-far:50051"},
        left_out={},
    )


@pytest.mark.parametrize(
    ("environment", "unset"),
    [({}, ["A_KEY", "B_KEY"]), ({"A_KEY": "a"}, ["B_KEY"]), ({"A_KEY": "", "B_KEY": "b"}, ["A_KEY"])],
)
def test_a_family_without_one_of_its_credentials_is_left_out(environment: dict[str, str], unset: list[str]) -> None:
    made = plan(DOCUMENT, environment)
    assert made.left_out == {"openai": unset}
    assert "openai" not in made.here


def test_families_are_the_blocks_with_upstreams() -> None:
    assert families(DOCUMENT) == ["openai", "far"]
    assert families({"worker": {"tls": {"certificate": "x"}, "odd": None}}) == []


def test_credentials_are_named_once_and_in_order() -> None:
    assert credentials(DOCUMENT, "openai") == ["A_KEY", "B_KEY"]
    assert credentials(DOCUMENT, "far") == ["FAR_KEY", "FAR_ACCOUNT"]
    assert credentials(DOCUMENT, "echo") == []


def test_the_key_is_the_first_whose_variable_is_set() -> None:
    assert client_key(DOCUMENT, {"CI": "of-ci"}) == ("of-ci", "CI")
    assert client_key(DOCUMENT, {"CI": "of-ci", "DEV": "of-dev"}) == ("of-dev", "DEV")
    assert client_key(DOCUMENT, {}) == ("", "")


@pytest.mark.parametrize(("auth", "answer"), [("open", True), ("keys", False), (None, False)])
def test_open_is_said_or_it_is_not(auth: str | None, answer: bool) -> None:
    assert is_open({"gateway": {"auth": auth}}) is answer


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"gateway": None, "worker": None},
        {"gateway": [], "worker": "words"},
        {"gateway": {"workers": ["openai"], "keys": "none"}, "worker": {"openai": {"upstreams": ["a"]}}},
        {"gateway": {"keys": ["none", {"key_env": None}]}},
    ],
)
def test_what_is_wrong_is_left_for_the_services_to_say(document: dict[str, Any]) -> None:
    assert plan(document, {}) == Plan({}, {}, {})
    assert client_key(document, {}) == ("", "")
    assert credentials(document, "openai") == []
