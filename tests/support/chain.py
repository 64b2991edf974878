"""The whole chain as most tests need it: two scripted upstreams, an openai worker and two gateways."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from support import services
from support.services import Service
from support.upstream import ScriptedUpstream

KEY: Final = "sk-a-key-of-these-tests"
CREDENTIAL: Final = "sk-our-own-at-the-upstream"


@dataclass(frozen=True)
class Chain:
    """gateway: open to everybody. guarded: asks for `KEY` (or other-key), takes 64 KB, comments after a moment of
    silence, and answers pages of https://app.example."""

    first: ScriptedUpstream
    second: ScriptedUpstream
    worker: Service
    gateway: Service
    guarded: Service


def model(name: str, *upstreams: str) -> dict[str, Any]:
    """A public model; an upstream `WORKER:` stands for that worker's first one."""
    targets = []
    for upstream in upstreams:
        worker, colon, _ = upstream.partition(":")
        target = {"worker": worker} if colon else {"worker": "openai", "upstream": upstream}
        targets.append({**target, "model": "scripted-model"})
    return {"name": name, "targets": targets}


@asynccontextmanager
async def start(folder: Path, dead_address: str) -> AsyncIterator[Chain]:
    """Starts it all. folder: for configurations and logs. dead_address: where nobody listens."""
    async with ScriptedUpstream() as first, ScriptedUpstream() as second:
        listed = {"models": ["listed", "vendor/listed:tag"]}
        impatient = {"first_byte_timeout": 1.0, "idle_timeout": 1.0, "models": ["impatient-only"]}
        upstreams: dict[str, Any] = {
            "first": {"base_url": first.url, "credential_env": "SCRIPTED_CREDENTIAL", **listed},
            "second": {"base_url": second.url, "headers": {"x-of-ours": "yes"}, "models": ["second-only", "listed"]},
            "refused": {"base_url": f"http://{dead_address}/v1", "models": ["refused-only"]},
            "impatient": {"base_url": first.url, **impatient},
        }
        for upstream in upstreams.values():
            upstream["retries"] = 0  # one request, one attempt: test_retries.py is about more
        environment = {"SCRIPTED_CREDENTIAL": CREDENTIAL}
        async with services.worker("openai", folder, upstreams, environment, forks=False) as worker:
            settings: dict[str, Any] = {
                "breaker": {"failures": 1000, "longest_rest": 0},  # the first target is asked, however often it failed
                # `lists` is the same worker under a name that no model uses: its own list is part of the catalogue.
                "workers": {"openai": worker.address, "absent": dead_address, "lists": worker.address},
                "models": [
                    model("scripted", "first"),
                    model("second", "second"),
                    model("pair", "first", "second"),
                    model("refused", "refused"),
                    model("refused-pair", "refused", "first"),
                    model("impatient", "impatient"),
                    model("impatient-pair", "impatient", "second"),
                    model("absent", "absent:"),
                    model("absent-pair", "absent:", "first"),
                    model("vendor/model:tag", "first"),
                ],
            }
            digest = hashlib.sha256(KEY.encode()).hexdigest()
            guard = {
                "auth": "keys",
                "keys": [{"name": "digest", "sha256": digest}, {"name": "variable", "key_env": "OTHER_KEY"}],
                "max_body_bytes": 64 * 1024,
                "keep_alive_interval": 0.2,
                "cors": {"origins": ["https://app.example"]},
                "timeout": 20,
            }
            async with (
                services.gateway(settings, folder, forks=False) as gateway,
                services.gateway({**settings, **guard}, folder, "guarded", {"OTHER_KEY": "other-key"}) as guarded,
            ):
                yield Chain(first, second, worker, gateway, guarded)
