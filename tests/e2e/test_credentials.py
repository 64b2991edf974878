"""An account's own provider credentials, over the whole chain."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from support import accounts, services
from support.accounts import Bridge, Gateway
from support.client import ask
from support.services import Service
from support.upstream import Reply, ScriptedUpstream, completion, text_stream

from trestle.sealed import METADATA_KEY, Purpose, key_bytes, new_pair, seal
from trestle.v1 import chat_pb2, worker_service_pb2_grpc

OLD, PAIR = new_pair(), new_pair()
SECRET = "sk-of-the-account-alone-0123"
OURS = "sk-of-the-operator"
CREDENTIAL = {"name": "mine", "worker": "w", "upstream": "open", "secret": SECRET}
MODEL = {"name": "own", "worker": "w", "upstream": "open", "model": "m", "credential": "mine"}


@dataclass
class Served:
    bridge: Bridge
    worker: Service
    upstream: ScriptedUpstream

    @property
    def gateway(self) -> Gateway:
        return self.bridge.first

    async def ask(self, key: str, method: str, path: str, body: Any = None) -> Any:
        return await self.gateway.ask(method, path, key, body)

    async def with_model(self) -> str:
        """A key whose account has a credential, and a model that uses it."""
        key = await self.bridge.key()
        for path, body in (("/v1/credentials", CREDENTIAL), ("/v1/models", MODEL)):
            answer = await self.ask(key, "POST", path, body)
            assert answer.status == 200, answer.body
        return key


@asynccontextmanager
async def served(folder: Path, public: str = PAIR.public) -> AsyncIterator[Served]:
    async with ScriptedUpstream() as upstream:
        one = {"base_url": upstream.url, "credential_env": "OURS", "retries": 0}
        config = {
            "name": "w",
            "seal_key_envs": ["NEW_KEY", "OLD_KEY"],
            "openai": {"upstreams": {"open": {**one, "accept_credentials": True}, "closed": one}},
        }
        environment = {"OURS": OURS, "NEW_KEY": PAIR.private, "OLD_KEY": OLD.private}
        running = services.running(
            "worker", "worker", "openai", config={"worker": config}, folder=folder, environment=environment
        )
        async with running as worker:
            target = {"worker": "w", "upstream": "open", "model": "m"}
            settings = {
                "auth": "keys",
                "workers": {"w": {"address": worker.address, "seal_key": public}},
                "models": [{"name": "shared", "targets": [target]}],
                "database": f"sqlite:///{folder}/t.db",
            }
            async with accounts.gateway(settings, folder, "gateway") as gateway:
                yield Served(Bridge(gateway, gateway, upstream), worker, upstream)


def shown(upstream: ScriptedUpstream) -> str:
    """What the upstream was shown last."""
    return upstream.requests[-1].headers["authorization"]


def holding(folder: Path, secret: str) -> list[Path]:
    """The files below a folder, logs and databases, in which the secret stands."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert len(files) > 3
    return [file for file in files if secret.encode() in file.read_bytes()]


@pytest.mark.parametrize("streamed", [False, True])
async def test_it_is_shown_for_the_accounts_own_model_and_for_nothing_else(tmp_path: Path, streamed: bool) -> None:
    async with served(tmp_path) as it:
        key = await it.with_model()
        for model, credential in (("own", SECRET), ("shared", OURS), ("own", SECRET)):
            it.upstream.will(Reply.sse(*text_stream(["Hi."])) if streamed else Reply.json(completion()))
            answer = await it.ask(key, "POST", "/v1/chat/completions", {**ask(model), "stream": streamed})
            assert answer.status == 200, answer.body
            assert shown(it.upstream) == f"Bearer {credential}"
        it.upstream.will(Reply.json({"object": "list", "data": [], "usage": {"prompt_tokens": 1, "total_tokens": 1}}))
        await it.ask(key, "POST", "/v1/embeddings", {"model": "own", "input": "x"})
        assert shown(it.upstream) == f"Bearer {SECRET}"


async def test_it_is_nowhere_to_be_seen(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        key = await it.with_model()
        listed = await it.ask(key, "GET", "/v1/credentials")
        (one,) = listed.json["data"]
        assert (one["name"], one["secret"], one["pair"]) == ("mine", "…0123", PAIR.name)
        it.upstream.will(Reply.json({"error": {"message": f"No {SECRET}."}}, 401))
        answer = await it.ask(key, "POST", "/v1/chat/completions", ask("own"))
        assert (answer.status, answer.error()["code"]) == (403, "credential_refused")
        assert SECRET not in answer.body.decode()
        bad = await it.ask(key, "POST", "/v1/credentials", {**CREDENTIAL, "name": "other", "worker": "nobody"})
        assert bad.status == 400
        bad = await it.ask(key, "POST", "/v1/credentials", {**CREDENTIAL, "secret": [SECRET]})
        assert bad.status == 400
        assert SECRET not in bad.body.decode()
    assert holding(tmp_path, SECRET) == []


async def test_a_refused_credential_rests_nobody_elses_target(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        key = await it.with_model()
        for _ in range(12):  # more than a breaker lets pass
            it.upstream.will(Reply.json({"error": {"message": "No."}}, 401))
            assert (await it.ask(key, "POST", "/v1/chat/completions", ask("own"))).status == 403
        it.upstream.will(Reply.json(completion()))
        assert (await it.ask(key, "POST", "/v1/chat/completions", ask("shared"))).status == 200


async def test_an_upstream_that_takes_none(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        key = await it.bridge.key()
        await it.ask(key, "POST", "/v1/credentials", {**CREDENTIAL, "upstream": "closed"})
        await it.ask(key, "POST", "/v1/models", {**MODEL, "upstream": "closed"})
        answer = await it.ask(key, "POST", "/v1/chat/completions", ask("own"))
        assert (answer.status, answer.error()["code"]) == (403, "credential_not_accepted")
        assert it.upstream.requests == []


async def test_what_is_used_stays_and_what_is_gone_is_gone(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        key = await it.with_model()
        assert (await it.ask(key, "POST", "/v1/credentials", CREDENTIAL)).status == 409
        assert (await it.ask(key, "DELETE", "/v1/credentials/mine")).status == 409
        assert (await it.ask(key, "DELETE", "/v1/models/own")).status == 200
        assert (await it.ask(key, "DELETE", "/v1/credentials/mine")).status == 200
        assert (await it.ask(key, "GET", "/v1/credentials")).json["data"] == []
        assert (await it.ask(key, "DELETE", "/v1/credentials/mine")).status == 404
        assert (await it.ask(key, "POST", "/v1/models", MODEL)).status == 404


async def test_another_account_neither_sees_nor_uses_it(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        await it.with_model()
        other = await it.bridge.key()
        assert (await it.ask(other, "GET", "/v1/credentials")).json["data"] == []
        assert (await it.ask(other, "POST", "/v1/models", MODEL)).status == 404
        assert (await it.ask(other, "DELETE", "/v1/credentials/mine")).status == 404
        for key, status in (("", 401), (await it.bridge.key(scopes=["chat"]), 403)):
            for method, path in (("GET", ""), ("POST", ""), ("DELETE", "/mine")):
                assert (await it.ask(key, method, f"/v1/credentials{path}", CREDENTIAL)).status == status
        # Should somebody get at the sealed text, it is of no use to another account.
        connection = sqlite3.connect(tmp_path / "t.db")
        ((sealed,),) = connection.execute("SELECT sealed FROM credentials").fetchall()
        connection.close()
        async with grpc.aio.insecure_channel(it.worker.address) as channel:
            stub: Any = worker_service_pb2_grpc.WorkerServiceStub(channel)
            request = chat_pb2.ChatRequest(model="m", upstream="open", messages=[chat_pb2.Message(text="x")])
            for account in ("acct_other", ""):
                metadata = ((METADATA_KEY, sealed), ("x-account-id", account))
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await anext(aiter(stub.Chat(request, metadata=metadata)))
                assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert it.upstream.requests == []


async def test_what_an_older_pair_sealed_is_good_until_the_worker_forgets_it(tmp_path: Path) -> None:
    async with served(tmp_path, OLD.public) as it:
        key = await it.with_model()
        it.upstream.will(Reply.json(completion()))
        assert (await it.ask(key, "POST", "/v1/chat/completions", ask("own"))).status == 200
        assert shown(it.upstream) == f"Bearer {SECRET}"
        async with grpc.aio.insecure_channel(it.worker.address) as channel:
            stub: Any = worker_service_pb2_grpc.WorkerServiceStub(channel)
            request = chat_pb2.ChatRequest(model="m", upstream="open", messages=[chat_pb2.Message(text="x")])
            unknown = seal(key_bytes(new_pair().public), Purpose("default", "w", "open"), SECRET)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await anext(aiter(stub.Chat(request, metadata=((METADATA_KEY, unknown),))))
        assert "store it anew" in json.dumps(caught.value.details())
