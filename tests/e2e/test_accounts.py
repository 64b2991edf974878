"""Accounts and keys as operators and callers see them, on both databases, with two gateways."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support import accounts, databases, services
from support.accounts import ADMIN_KEY, CHAT_FILE_KEY, FILE_KEY, Bridge, trestle
from support.client import ask
from support.databases import PostgreSQL
from support.upstream import Reply, completion

from gateway.auth import new_key

pytestmark = pytest.mark.asyncio(loop_scope="session")
ADMIN = [
    ("POST", "/accounts"),
    ("GET", "/accounts"),
    ("GET", "/accounts/default"),
    ("POST", "/accounts/default/disable"),
    ("POST", "/accounts/default/enable"),
    ("POST", "/accounts/default/keys"),
    ("GET", "/accounts/default/keys"),
    ("GET", "/keys/tr_0123456789"),
    ("POST", "/keys/tr_0123456789/disable"),
    ("POST", "/keys/tr_0123456789/enable"),
    ("POST", "/keys/tr_0123456789/expire"),
    ("POST", "/keys/tr_0123456789/rotate"),
]


class TestKeys:
    async def test_a_new_key_opens_every_gateway(self, bridge: Bridge) -> None:
        key = await bridge.key()
        assert (await bridge.first.ask("GET", "/v1/models", key)).status == 200
        assert (await bridge.second.ask("GET", "/v1/models", key)).status == 200
        assert (await bridge.second.ask("GET", "/v1/models", key[:-1] + "?")).status == 401

    async def test_it_is_shown_once_and_kept_as_a_digest(self, bridge: Bridge) -> None:
        account = await bridge.account()
        made = await bridge.new_key(account, name="ci", scopes=["chat"], models=["scripted"])
        assert made["key"].startswith(made["id"] + "_")
        listed = (await bridge.first.manage("GET", f"/accounts/{account}/keys")).json
        assert listed == {
            "object": "list",
            "data": [{name: value for name, value in made.items() if name != "key"}],
            "has_more": False,
        }
        assert made["name"] == "ci"
        assert made["scopes"] == ["chat"]
        assert made["models"] == ["scripted"]

    async def test_a_disabled_key_closes_every_gateway(self, bridge: Bridge) -> None:
        made = await bridge.new_key()
        await bridge.second.until(made["key"], 200)
        assert (await bridge.first.manage("POST", f"/keys/{made['id']}/disable")).json["disabled"]
        refused = await bridge.first.ask("GET", "/v1/models", made["key"])
        assert (refused.status, refused.error()["code"]) == (401, "invalid_api_key")
        await bridge.second.until(made["key"], 401)
        assert not (await bridge.first.manage("POST", f"/keys/{made['id']}/enable")).json["disabled"]
        await bridge.second.until(made["key"], 200)

    async def test_a_rotated_key_and_its_successor_overlap(self, bridge: Bridge) -> None:
        made = await bridge.new_key(scopes=["chat"], models=["scripted"])
        answer = (await bridge.first.manage("POST", f"/keys/{made['id']}/rotate", {"overlap": 3600})).json
        assert answer["replaces"]["id"] == made["id"]
        assert answer["replaces"]["expires"] == answer["created"] + 3600
        for name in ("account", "name", "scopes", "models", "expires"):
            assert answer[name] == made[name]
        for key in (made["key"], answer["key"]):
            await bridge.second.until(key, 200)
        at_once = (await bridge.first.manage("POST", f"/keys/{answer['id']}/rotate", {"overlap": 0})).json
        refused = await bridge.second.until(answer["key"], 401)
        assert refused.error()["code"] == "expired_api_key"
        await bridge.second.until(at_once["key"], 200)

    async def test_an_expired_key(self, bridge: Bridge) -> None:
        made = await bridge.new_key(expires_in=3600)
        assert made["expires"] == made["created"] + 3600
        assert (await bridge.first.manage("POST", f"/keys/{made['id']}/expire")).status == 200
        assert (await bridge.second.until(made["key"], 401)).error()["code"] == "expired_api_key"

    async def test_a_disabled_account_closes_all_its_keys(self, bridge: Bridge) -> None:
        account = await bridge.account()
        keys = [await bridge.key(account) for _ in range(2)]
        await bridge.first.manage("POST", f"/accounts/{account}/disable")
        for key in keys:
            error = (await bridge.second.until(key, 403)).error()
            assert (error["type"], error["code"]) == ("permission_error", "account_disabled")
        await bridge.first.manage("POST", f"/accounts/{account}/enable")
        await bridge.second.until(keys[0], 200)

    async def test_keys_of_the_file_go_on(self, bridge: Bridge) -> None:
        bridge.upstream.will(Reply.json(completion()))
        assert (await bridge.first.ask("POST", "/v1/chat/completions", CHAT_FILE_KEY, ask())).status == 200
        assert (await bridge.first.ask("GET", "/v1/agents", CHAT_FILE_KEY)).status == 403
        assert (await bridge.first.ask("GET", "/v1/agents", FILE_KEY)).status == 200


class TestRights:
    @pytest.mark.parametrize(
        ("path", "body", "scope"),
        [
            ("/v1/chat/completions", ask(), "chat"),
            ("/chat/completions", ask(), "chat"),
            ("/v1/completions", {"model": "scripted", "prompt": "a"}, "chat"),
            ("/v1/moderations", {"model": "scripted", "input": "a"}, "chat"),
            ("/v1/embeddings", {"model": "scripted", "input": "a"}, "embeddings"),
        ],
    )
    async def test_a_scope_is_needed(self, path: str, body: dict[str, Any], scope: str, bridge: Bridge) -> None:
        key = await bridge.key(scopes=[each for each in ("chat", "embeddings", "manage") if each != scope])
        refused = await bridge.first.ask("POST", path, key, body)
        error = refused.error()
        assert (refused.status, error["type"], error["code"]) == (403, "permission_error", "insufficient_scope")
        assert not bridge.upstream.requests

    async def test_only_the_models_it_is_for(self, bridge: Bridge) -> None:
        key = await bridge.key(models=["scripted"])
        refused = await bridge.first.ask("POST", "/v1/chat/completions", key, ask("other"))
        error = refused.error()
        assert (refused.status, error["type"], error["param"]) == (403, "permission_error", "model")
        bridge.upstream.will(Reply.json(completion()))
        assert (await bridge.first.ask("POST", "/v1/chat/completions", key, ask())).status == 200
        listed = (await bridge.first.ask("GET", "/v1/models", key)).json["data"]
        assert [each["id"] for each in listed] == ["scripted"]
        assert (await bridge.first.ask("GET", "/v1/models/other", key)).status == 403


class TestTheAdminApi:
    @pytest.mark.parametrize(("method", "path"), ADMIN, ids=lambda word: word)
    async def test_is_for_its_own_key_alone(self, method: str, path: str, bridge: Bridge) -> None:
        for key in ("", "wrong", FILE_KEY, await bridge.key()):
            refused = await bridge.first.manage(method, path, {}, key)
            assert (refused.status, refused.error()["type"]) == (401, "authentication_error")

    @pytest.mark.parametrize(("method", "path"), ADMIN, ids=lambda word: word)
    async def test_is_not_on_the_public_listener(self, method: str, path: str, bridge: Bridge) -> None:
        refused = await bridge.first.ask(method, "/admin/v1" + path, ADMIN_KEY)
        assert (refused.status, refused.error()["code"]) == (404, "unknown_url")

    async def test_its_key_opens_nothing_else(self, bridge: Bridge) -> None:
        assert (await bridge.first.ask("GET", "/v1/models", ADMIN_KEY)).status == 401

    @pytest.mark.parametrize(
        ("path", "body", "param"),
        [
            ("/accounts", {}, "name"),
            ("/accounts", {"name": "No Spaces"}, "name"),
            ("/accounts", {"name": "acct_x"}, "name"),
            ("/accounts", {"name": "a", "nmae": "b"}, "nmae"),
            ("/accounts/default/keys", {"name": "k", "scopes": ["admin"]}, "scopes[0]"),
            ("/accounts/default/keys", {"name": "k", "scopes": []}, "scopes"),
            ("/accounts/default/keys", {"name": "k", "models": [1]}, "models[0]"),
            ("/accounts/default/keys", {"name": "k", "expires_in": 0}, "expires_in"),
            ("/keys/x/rotate", {"overlap": -1}, "overlap"),
        ],
    )
    async def test_bad_input_is_named(self, path: str, body: dict[str, Any], param: str, bridge: Bridge) -> None:
        refused = await bridge.first.manage("POST", path, body)
        assert (refused.status, refused.error()["param"]) == (400, param)

    async def test_what_is_not_there(self, bridge: Bridge) -> None:
        for method, path in (("GET", "/accounts/none"), ("POST", "/keys/none/rotate"), ("GET", "/keys/none")):
            refused = await bridge.first.manage(method, path, None if method == "GET" else {})
            assert (refused.status, refused.error()["type"]) == (404, "not_found_error")

    async def test_a_name_is_given_once(self, bridge: Bridge) -> None:
        account = await bridge.account()
        refused = await bridge.second.manage("POST", "/accounts", {"name": account})
        assert (refused.status, refused.error()["type"]) == (409, "conflict")

    async def test_lists_come_in_pages(self, bridge: Bridge) -> None:
        account = await bridge.account()
        made = sorted([(await bridge.new_key(account))["id"] for _ in range(3)])
        page = (await bridge.first.manage("GET", f"/accounts/{account}/keys?limit=2")).json
        assert ([key["id"] for key in page["data"]], page["has_more"]) == (made[:2], True)
        page = (await bridge.first.manage("GET", f"/accounts/{account}/keys?limit=2&after={made[1]}")).json
        assert ([key["id"] for key in page["data"]], page["has_more"]) == (made[2:], False)
        assert (await bridge.first.manage("GET", "/accounts?limit=0")).error()["param"] == "limit"

    async def test_the_files_account_is_not_closed(self, bridge: Bridge) -> None:
        assert (await bridge.first.manage("POST", "/accounts/default/disable")).status == 400


class TestAnOutage:
    """Of a server of this test's own."""

    @pytest.fixture
    def server(self) -> Iterator[PostgreSQL]:
        try:
            with databases.postgresql() as server:
                yield server
        except databases.Missing as missing:
            pytest.skip(str(missing))

    async def test_closes_no_door_that_was_open(self, tmp_path: Path, server: PostgreSQL) -> None:
        async with accounts.bridge(tmp_path, server.create()) as bridge:
            known = await bridge.key()
            await bridge.second.until(known, 200)
            server.stop()
            bridge.upstream.will(Reply.json(completion()))
            for _ in range(2):
                assert (await bridge.second.ask("GET", "/v1/models", known)).status == 200
            assert (await bridge.second.ask("POST", "/v1/chat/completions", known, ask())).status == 200
            unknown = await bridge.second.ask("GET", "/v1/models", new_key().text)
            assert (unknown.status, unknown.error()["code"]) == (503, "database_unavailable")
            assert unknown.headers["retry-after"] == "1"
            agent = {"name": "a", "model": "scripted"}
            assert (await bridge.second.ask("POST", "/v1/agents", known, agent)).status == 503
            assert (await bridge.first.manage("GET", "/accounts")).status == 503
            server.start()
            fresh = await bridge.key()
            await bridge.second.until(fresh, 200)

    async def test_of_silence_is_one_too(self, tmp_path: Path, server: PostgreSQL) -> None:
        """The gateways end in good order while it lasts: leaving the bridge asks for that."""
        try:
            async with accounts.bridge(tmp_path, server.create()) as bridge:
                known = await bridge.key()
                await bridge.second.until(known, 200)
                server.signal(signal.SIGSTOP)
                assert (await bridge.second.ask("GET", "/v1/models", known)).status == 200
                unknown = await bridge.second.ask("GET", "/v1/models", new_key().text)
                assert (unknown.status, unknown.error()["code"]) == (503, "database_unavailable")
        finally:
            server.signal(signal.SIGCONT)


class TestWithoutADatabase:
    async def test_nothing_of_it_is_imported(self) -> None:
        code = "import sys, gateway.__main__; sys.exit(bool({'sqlalchemy', 'alembic', 'aiosqlite'} & set(sys.modules)))"
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=services.ROOT)
        assert await process.wait() == 0

    async def test_there_is_nothing_to_manage(self, tmp_path: Path, dead_address: str) -> None:
        async with services.gateway({"workers": {"w": dead_address}}, tmp_path) as gateway:
            one = accounts.Gateway(gateway, "")
            for method, path in (("GET", "/v1/agents"), ("POST", "/v1/agents")):
                answer = await one.ask(method, path, "")
                assert (answer.status, answer.error()["code"]) == (404, "unknown_url")
            assert (await one.ask("POST", "/v1/models", "")).status == 405

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"admin": {"key_env": "X"}}, "gateway.admin: needs gateway.database"),
            ({"database": "mysql://x/y"}, "gateway.database: mysql is neither"),
            ({"database": "sqlite:////nowhere/t.db"}, "gateway.database: /nowhere/t.db: No such file or directory"),
            ({"database": "sqlite:///t.db", "admin": {"key_env": "UNSET_X"}}, "UNSET_X is not set"),
            (
                {"database": "postgresql://nobody:hidden@127.0.0.1:1/none"},
                "cannot be used: [Errno 111] Connection refused; is it running, and are address, user and",
            ),
        ],
    )
    async def test_a_wrong_configuration_is_said(self, settings: dict[str, Any], words: str, tmp_path: Path) -> None:
        if settings.get("database") == "sqlite:///t.db":
            settings = {**settings, "database": f"sqlite:///{tmp_path}/t.db"}
        with pytest.raises(AssertionError, match="did not start") as caught:
            async with services.gateway({"workers": {"w": "127.0.0.1:1"}, **settings}, tmp_path):
                pass
        assert words in str(caught.value)
        assert "hidden" not in str(caught.value)


async def test_an_open_gateway_knows_the_keys_of_accounts(tmp_path: Path, dead_address: str) -> None:
    settings = {"database": f"sqlite:///{tmp_path}/t.db", "workers": {"w": dead_address}}
    async with accounts.gateway(settings, tmp_path, "open") as gateway:
        assert (await gateway.manage("POST", "/accounts", {"name": "acme"})).status == 200
        key = (await gateway.manage("POST", "/accounts/acme/keys", {"name": "k"})).json["key"]
        assert (await gateway.ask("GET", "/v1/models", "")).status == 200
        assert (await gateway.ask("GET", "/v1/models", "anything")).status == 200
        assert (await gateway.ask("GET", "/v1/agents", "")).status == 200
        assert (await gateway.ask("GET", "/v1/agents", "", origin="https://elsewhere.example")).status == 403
        assert (await gateway.ask("GET", "/v1/agents", key)).status == 403
        assert (await gateway.ask("GET", "/v1/models", new_key().text)).status == 401


async def test_the_description_of_the_api_tells_of_them(bridge: Bridge) -> None:
    document = (await bridge.first.ask("GET", "/openapi.json", "")).json
    managed = {path: set(methods) - {"servers"} for path, methods in document["paths"].items() if "agents" in path}
    assert managed == {"/agents": {"get", "post"}, "/agents/{name}": {"get", "put", "patch", "delete"}}
    assert set(document["paths"]["/models/{id}"]) == {"get", "delete"}
    key = await bridge.key()
    agent = {"name": "a", "model": "scripted", "tools": [{"type": "function", "function": {"name": "f"}}]}
    validator(document, "CreateAgentRequest").validate(agent)
    assert not validator(document, "CreateAgentRequest").is_valid({**agent, "tols": []})
    made = (await bridge.first.ask("POST", "/v1/agents", key, agent)).json
    validator(document, "Agent").validate(made)
    model = {"name": "m", "worker": "openai", "model": "x"}
    validator(document, "CreateModelRequest").validate(model)
    validator(document, "AddedModel").validate((await bridge.first.ask("POST", "/v1/models", key, model)).json)
    validator(document, "Agents").validate((await bridge.first.ask("GET", "/v1/agents", key)).json)
    validator(document, "Models").validate((await bridge.first.ask("GET", "/v1/models", key)).json)


def validator(document: dict[str, Any], name: str) -> jsonschema.Draft202012Validator:
    """For a schema of the description."""
    return jsonschema.Draft202012Validator({**document, "$ref": f"#/components/schemas/{name}"})


class TestTheCommands:
    async def test_from_an_account_to_the_end_of_its_key(self, bridge: Bridge) -> None:
        url = ("--url", f"http://{bridge.first.admin}")
        name = await bridge.account()
        status, out, _ = await trestle("accounts", "list", *url)
        assert status == 0
        assert name in [line.split("\t")[1] for line in out.splitlines()]
        options = ("--name", "ci", "--scope", "chat", "--model", "scripted", "--expires-in", "90d")
        status, out, errors = await trestle("keys", "create", name, *options, *url)
        key, id = out.strip(), errors.split()[0]  # noqa: A001
        assert (status, key.startswith(f"{id}_")) == (0, True)
        assert (await bridge.first.ask("GET", "/v1/models", key)).status == 200
        status, out, _ = await trestle("keys", "rotate", id, "--overlap", "10m", *url)
        assert status == 0
        assert (await bridge.first.ask("GET", "/v1/models", out.strip())).status == 200
        status, out, _ = await trestle("keys", "list", name, *url)
        assert [line.split("\t")[1:5] for line in out.splitlines()] == [["ci", "open", "chat", "scripted"]] * 2
        assert (await trestle("keys", "disable", id, *url))[0] == 0
        assert (await bridge.first.ask("GET", "/v1/models", key)).status == 401
        assert "\tdisabled\t" in (await trestle("accounts", "disable", name, *url))[1]

    async def test_limits_are_shown_as_they_were_set(self, bridge: Bridge) -> None:
        url = ("--url", f"http://{bridge.first.admin}")
        name = await bridge.account()
        limits = ("--tokens-per-day", "1000000", "--cost-per-month", "0.25")
        assert (await trestle("accounts", "limit", name, *limits, *url))[0] == 0
        _, out, _ = await trestle("accounts", "get", name, *url)
        assert out.rstrip("\n").split("\t")[4:] == ["tokens_per_day=1000000", "cost_per_month=0.25"]

    async def test_what_fails_is_one_line(self, bridge: Bridge) -> None:
        url = ("--url", f"http://{bridge.first.admin}")
        said = "trestle: 404: There is no account 'nobody'.\n"
        assert await trestle("accounts", "get", "nobody", *url) == (1, "", said)
        refused = await trestle("accounts", "list", *url, key="wrong")
        assert refused[0] == 1
        assert refused[2].endswith(" The key is taken from the environment variable TRESTLE_ADMIN_KEY.\n")
        status, _, errors = await trestle("accounts", "list", *url, key="")
        said = "it holds the key that the gateway knows by gateway.admin.key_env"
        assert (status, errors) == (2, f"trestle: the environment variable TRESTLE_ADMIN_KEY is not set: {said}\n")
        assert (await trestle("keys", "expire", "x", "--in", "soon", *url))[0] == 2


