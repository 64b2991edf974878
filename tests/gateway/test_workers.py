"""What the gateway makes of its workers' settings."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.settings import GatewaySettings
from gateway.workers import Link, read_links
from trestle.config import ConfigError


def links(endpoint: dict[str, Any], **environment: str) -> dict[str, Link]:
    settings = msgspec.convert({"auth": "open", "workers": {"w": endpoint}}, GatewaySettings)
    return read_links(settings, environment)


def test_where_a_worker_is_and_what_opens_it() -> None:
    link = links({"address": "dns:///worker.test:50051", "token_env": "TOKEN"}, TOKEN="t")["w"]
    assert (link.name.host, link.name.port, link.token) == ("worker.test", 50051, "t")
    assert (link.pem, link.context) == (None, None)
    assert link == links({"address": "dns:///worker.test:50051", "token_env": "TOKEN"}, TOKEN="t")["w"]


@pytest.mark.parametrize(
    ("endpoint", "token", "words"),
    [
        ({"address": "http://worker:1"}, "", r"gateway\.workers\.w: 'http://worker:1' is no address of a worker"),
        ({"address": "worker:0"}, "", r"gateway\.workers\.w: 'worker:0' is no address of a worker: '0' is no port"),
        ({"address": "a:1", "tls": {"name": "\u00fc..test"}}, "", r"gateway\.workers\.w\.tls\.name: .* is no name"),
        ({"address": "a:1", "token_env": "TOKEN"}, "", r"gateway\.workers\.w\.token_env: .* TOKEN is not set"),
        ({"address": "a:1", "token_env": "TOKEN"}, "secret\n", r"token_env: TOKEN holds what no header may"),
        ({"address": "a:1", "token_env": "TOKEN"}, "s\u00e4cret", r"token_env: TOKEN holds what no header may"),
    ],
)
def test_what_cannot_be_is_said(endpoint: dict[str, Any], token: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        links(endpoint, TOKEN=token)
    assert "cret" not in str(caught.value)
