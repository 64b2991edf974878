"""The HTTP edge itself: paths, methods, keys, ids, the usual headers, CORS, health."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from support import schemas, services
from support.chain import CREDENTIAL, KEY, Chain
from support.client import Client, ask
from support.ports import free_port
from support.upstream import PATIENCE, Framing, Gate, Reply, ScriptedUpstream, completion, text_stream

pytestmark = pytest.mark.asyncio(loop_scope="session")

REQUEST = json.dumps(ask()).encode()
ORIGIN = "https://app.example"


class TestPaths:
    @pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions", "/v1/chat/completions?x=1"])
    async def test_with_and_without_the_version(self, path: str, client: Client, first: ScriptedUpstream) -> None:
        first.will(Reply.json(completion()))
        assert (await client.ask("POST", path, REQUEST)).status == 200
        assert first.requests[0].path == "/v1/chat/completions"

    @pytest.mark.parametrize("path", ["/", "/v1", "/v1/chat", "/v2/models", "/v1/chat/completions/", "/v1/x%2Fy"])
    async def test_an_unknown_one(self, path: str, client: Client) -> None:
        answer = await client.ask("POST", path, REQUEST)
        error = answer.error()
        assert (answer.status, error["type"], error["code"]) == (404, "not_found_error", "unknown_url")

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
    async def test_a_wrong_method(self, method: str, client: Client) -> None:
        answer = await client.ask(method, "/v1/chat/completions")
        error = answer.error()
        assert (answer.status, error["type"], error["code"]) == (405, "invalid_request_error", "method_not_allowed")
        assert answer.headers["allow"] == "POST"

    async def test_a_client_that_waits_before_it_sends_its_body(
        self, chain: Chain, first: ScriptedUpstream
    ) -> None:
        first.will(Reply.json(completion()))
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\nexpect: 100-continue\r\n"
        reader, writer = await asyncio.open_connection(*chain.gateway.address.split(":"))
        async with asyncio.timeout(PATIENCE):
            writer.write(f"{head}content-length: {len(REQUEST)}\r\n\r\n".encode())
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(REQUEST)
            answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.count(b"HTTP/1.1") == 1

    async def test_a_client_whose_body_is_not_wanted_is_not_told_to_send_it(self, chain: Chain) -> None:
        reader, writer = await asyncio.open_connection(*chain.gateway.address.split(":"))
        async with asyncio.timeout(PATIENCE):
            writer.write(b"POST /v1/nowhere HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 404")
        writer.close()

    async def test_another_expectation(self, client: Client) -> None:
        answer = await client.ask("POST", "/v1/chat/completions", REQUEST, expect="miracles")
        assert (answer.status, answer.error()["param"]) == (400, "expect")

    async def test_what_is_not_http(self, chain: Chain) -> None:
        host, port = chain.gateway.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"NONSENSE\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            answer = await reader.read()
        writer.close()
        assert answer.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))


class TestKeys:
    """Of the guarded gateway."""

    @pytest.mark.parametrize(
        "headers",
        [
            {"authorization": f"Bearer {KEY}"},
            {"authorization": f"bearer   {KEY} "},
            {"x-api-key": KEY},
            {"x-api-key": "other-key"},
            {"authorization": "Bearer other-key", "x-api-key": "wrong"},
        ],
    )
    async def test_a_right_one(self, headers: dict[str, str], chain: Chain, first: ScriptedUpstream) -> None:
        first.will(Reply.json(completion()))
        async with Client(chain.guarded.address, headers) as client:
            assert (await client.chat(ask())).status == 200

    @pytest.mark.parametrize(
        ("headers", "code"),
        [
            ({}, "missing_api_key"),
            ({"authorization": ""}, "missing_api_key"),
            ({"authorization": "Bearer "}, "missing_api_key"),
            ({"authorization": f"Basic {KEY}"}, "missing_api_key"),
            ({"x-api-key": ""}, "missing_api_key"),
            ({"authorization": "Bearer wrong"}, "invalid_api_key"),
            ({"authorization": f"Bearer {KEY}x"}, "invalid_api_key"),
            ({"authorization": f"Bearer {KEY.upper()}"}, "invalid_api_key"),
            ({"authorization": "Bearer é"}, "invalid_api_key"),
            ({"x-api-key": "wrong"}, "invalid_api_key"),
            ({"authorization": "Bearer wrong", "x-api-key": KEY}, "invalid_api_key"),
        ],
    )
    async def test_none_or_a_wrong_one(
        self, headers: dict[str, str], code: str, chain: Chain, first: ScriptedUpstream
    ) -> None:
        async with Client(chain.guarded.address, headers) as client:
            for answer in (await client.chat(ask()), await client.ask("GET", "/v1/models")):
                error = answer.error()
                assert (answer.status, error["type"], error["code"]) == (401, "authentication_error", code)
                assert error["param"] is None
                assert KEY not in error["message"]
        assert first.requests == []

    async def test_health_asks_for_none(self, chain: Chain) -> None:
        async with Client(chain.guarded.address) as client:
            assert (await client.ask("GET", "/healthz")).status == 200
            assert (await client.ask("GET", "/readyz")).status == 200

    async def test_the_upstream_sees_our_credential_and_not_the_key(
        self, guarded: Client, first: ScriptedUpstream, second: ScriptedUpstream
    ) -> None:
        first.will(Reply.json(completion()))
        second.will(Reply.json(completion()))
        await guarded.chat(ask())
        await guarded.chat(ask("second"))
        assert first.requests[0].headers["authorization"] == f"Bearer {CREDENTIAL}"
        assert "authorization" not in second.requests[0].headers
        assert second.requests[0].headers["x-of-ours"] == "yes"
        assert not any(KEY in text for seen in (first, second) for text in seen.requests[0].headers.values())


class TestHeaders:
    async def test_the_usual_ones(self, client: Client, first: ScriptedUpstream) -> None:
        first.will(Reply.json(completion()), Reply.sse(*text_stream(["a"])))
        whole, stream = await client.chat(ask()), await client.stream(ask())
        refused = await client.ask("POST", "/v1/chat/completions", b"{")
        nowhere = await client.ask("GET", "/nowhere")
        for answer in (whole, stream, refused, nowhere):
            assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["x-request-id"])
            assert answer.headers["openai-processing-ms"].isdecimal()
        assert len({answer.headers["x-request-id"] for answer in (whole, stream, refused, nowhere)}) == 4
        assert whole.headers["content-type"] == "application/json"

    async def test_those_of_a_stream(self, client: Client, first: ScriptedUpstream) -> None:
        first.will(Reply.sse(*text_stream(["a"])))
        headers = (await client.stream(ask())).headers
        assert headers["content-type"].startswith("text/event-stream")
        assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-cache", "no")

    @pytest.mark.parametrize("given", ["a", "req-1", "x" * 128, "with blanks inside", "~!@#"])
    async def test_a_callers_id_is_kept(self, given: str, client: Client, first: ScriptedUpstream) -> None:
        first.will(Reply.json(completion()))
        answer = await client.chat(ask(), x_request_id=given)
        assert answer.headers["x-request-id"] == given
        assert first.requests[0].headers["x-request-id"] == given

    @pytest.mark.parametrize("name", ["x-request-id", "x-client-id", "x-session-id"])
    @pytest.mark.parametrize("given", ["x" * 129, "é", "a\tb", ""])
    async def test_an_id_that_is_none(self, name: str, given: str, client: Client, first: ScriptedUpstream) -> None:
        answer = await client.chat(ask(), **{name: given})
        error = answer.error()
        assert (answer.status, error["type"], error["param"]) == (400, "invalid_request_error", name)
        assert first.requests == []


class TestCors:
    """The guarded gateway answers pages of one origin."""

    async def preflight(self, client: Client, origin: str, headers: str = "") -> Any:
        named = {"access-control-request-headers": headers} if headers else {}
        return await client.ask(
            "OPTIONS", "/v1/chat/completions", None, origin=origin, access_control_request_method="POST", **named
        )

    async def test_a_preflight(self, chain: Chain) -> None:
        # Firefox and Safari ask for the agent too, which OpenAI's SDK names itself.
        wanted = "authorization, X-API-Key, x-client-id, x-session-id, x-stainless-os, content-type, user-agent, x-evil"
        async with Client(chain.guarded.address) as browser:
            answer = await self.preflight(browser, ORIGIN, wanted)
        assert answer.status == 204
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "POST" in answer.headers["access-control-allow-methods"]
        allowed = set(answer.headers["access-control-allow-headers"].split(", "))
        assert allowed == {name.strip().lower() for name in wanted.split(",")} - {"x-evil"}

    async def test_a_preflight_from_elsewhere(self, chain: Chain) -> None:
        async with Client(chain.guarded.address) as browser:
            answer = await self.preflight(browser, "https://evil.example", "authorization")
        assert not any(name.lower().startswith("access-control-allow") for name in answer.headers)

    async def test_a_preflight_from_a_public_page_to_a_private_address(self, chain: Chain) -> None:
        async with Client(chain.guarded.address) as browser:
            named = {"access_control_request_method": "POST", "access_control_request_private_network": "true"}
            asked = [
                await browser.ask("OPTIONS", "/v1/chat/completions", None, origin=origin, **named)
                for origin in (ORIGIN, "https://evil.example")
            ]
            unasked = await self.preflight(browser, ORIGIN)
        granted = [answer.headers.get("access-control-allow-private-network") for answer in (*asked, unasked)]
        assert granted == ["true", None, None]

    async def test_answers_and_errors_may_be_read(self, guarded: Client, first: ScriptedUpstream) -> None:
        first.will(Reply.json(completion()), Reply.json({}, 500))
        answers = [
            await guarded.chat(ask(), origin=ORIGIN),
            await guarded.chat(ask(), origin=ORIGIN),
            await guarded.chat(ask("nobody"), origin=ORIGIN),
            await guarded.chat(ask(), origin=ORIGIN, authorization="Bearer wrong"),
            await guarded.ask("GET", "/nowhere", origin=ORIGIN),
        ]
        assert [answer.status for answer in answers] == [200, 502, 404, 401, 404]
        for answer in answers:
            assert answer.headers["access-control-allow-origin"] == ORIGIN
            assert "x-request-id" in answer.headers["access-control-expose-headers"]

    async def test_no_origin_may_read_where_none_is_named(self, client: Client, first: ScriptedUpstream) -> None:
        first.will(Reply.json(completion()))
        answer = await client.chat(ask(), origin=ORIGIN)
        assert answer.status == 200
        assert not any(name.lower().startswith("access-control") for name in answer.headers)


class TestKeepAlive:
    async def test_silence_is_filled_with_comments(self, guarded: Client, first: ScriptedUpstream) -> None:
        gate, later = Gate(), Gate()
        events = text_stream(["Hel", "lo"])
        first.will(Reply.sse(gate, *events[:2], later, *events[2:]))
        async with guarded.open(ask()) as answer:
            assert [await answer.event() for _ in range(2)] == [": keep-alive"] * 2
            gate.set()
            await answer.text("Hel")
            comments = answer.seen.comments
            while answer.seen.comments == comments:
                assert await answer.event() == ": keep-alive"
            later.set()
            stream = await answer.rest()
        assert (stream.text(), stream.done) == ("Hello", True)
        assert stream.deltas()[0]["role"] == "assistant"

    async def test_the_time_for_all_is_bounded(self, chain: Chain, tmp_path: Path, first: ScriptedUpstream) -> None:
        """`gateway.timeout`: before anything is sent by a status, after that by an event."""
        settings = {
            "workers": {"openai": chain.worker.address},
            "models": [{"name": "m", "targets": [{"worker": "openai", "upstream": "first", "model": "m"}]}],
            "timeout": 0.5,
        }
        first.will(Reply([Gate()], framing=Framing.BARE), Reply.sse(*text_stream(["Hel"])[:2], Gate()))
        async with services.gateway(settings, tmp_path, "hasty") as gateway, Client(gateway.address) as client:
            answer = await client.chat(ask("m"))
            assert (answer.status, answer.error()["type"]) == (504, "timeout")
            stream = await client.stream(ask("m"))
            assert (stream.text(), stream.done) == ("Hel", False)
            assert stream.error is not None
            assert stream.error["type"] == "timeout"
        for request in (await first.request(), await first.request()):
            await request.closed()


class TestModels:
    @pytest.mark.parametrize("path", ["/v1/models", "/models"])
    async def test_the_list(self, path: str, client: Client) -> None:
        answer = await client.ask("GET", path)
        assert answer.status == 200
        schemas.assert_valid(answer.json, schemas.MODELS)
        names = [model["id"] for model in answer.json["data"]]
        assert len(names) == len(set(names))
        assert {"scripted", "pair", "vendor/model:tag"} <= set(names), "those of the configuration"
        assert {"listed", "vendor/listed:tag", "second-only"} <= set(names), "those that a worker lists"

    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("scripted", "scripted"),
            ("vendor/model:tag", "vendor/model:tag"),
            ("vendor%2Fmodel%3Atag", "vendor/model:tag"),
            ("vendor%2fmodel:tag", "vendor/model:tag"),
            ("vendor/listed:tag", "vendor/listed:tag"),
            ("vendor%2Flisted:tag", "vendor/listed:tag"),
            ("scripted?api-version=2024-10-21", "scripted"),
            ("vendor%2Fmodel%3Atag?a=/b", "vendor/model:tag"),
        ],
    )
    @pytest.mark.parametrize("prefix", ["/v1", ""])
    async def test_one(self, path: str, name: str, prefix: str, client: Client) -> None:
        answer = await client.ask("GET", f"{prefix}/models/{path}")
        assert (answer.status, answer.json["id"]) == (200, name)
        schemas.assert_valid(answer.json, schemas.MODEL)

    @pytest.mark.parametrize("path", ["nobody", "vendor", "vendor/model", "vendor%252Fmodel:tag", "%FF", "scripted/"])
    async def test_none(self, path: str, client: Client) -> None:
        answer = await client.ask("GET", f"/v1/models/{path}")
        error = answer.error()
        assert (answer.status, error["type"], error["code"]) == (404, "invalid_request_error", "model_not_found")

    @pytest.mark.parametrize("name", ["vendor/model:tag", "vendor/listed:tag", "listed", "second-only"])
    async def test_whoever_is_listed_answers(
        self, name: str, client: Client, first: ScriptedUpstream, second: ScriptedUpstream
    ) -> None:
        upstream = second if name == "second-only" else first
        upstream.will(Reply.json(completion()))
        assert (await client.chat(ask(name))).status == 200
        wanted = "scripted-model" if name == "vendor/model:tag" else name
        assert upstream.requests[0].json["model"] == wanted


class TestHealth:
    async def test_alive(self, client: Client) -> None:
        answer = await client.ask("GET", "/healthz")
        assert (answer.status, answer.json["status"]) == (200, "ok")

    async def test_ready_says_who_serves(self, client: Client) -> None:
        answer = await client.ask("GET", "/readyz")
        assert answer.status == 200
        assert answer.json["workers"] == {"openai": True, "absent": False, "lists": True}

    async def test_ready_only_once_a_worker_serves(self, tmp_path: Path) -> None:
        upstreams = {"u": {"base_url": "http://127.0.0.1:9/v1", "models": ["late"]}}
        address = f"127.0.0.1:{free_port()}"
        settings = {"workers": {"w": address}}
        async with services.gateway(settings, tmp_path) as gateway, Client(gateway.address) as client:
            answer = await client.ask("GET", "/readyz")
            assert (answer.status, answer.json["workers"]) == (503, {"w": False})
            assert (await client.ask("GET", "/healthz")).status == 200
            unknown = await client.chat(ask("late"))
            assert (unknown.status, unknown.error()["type"]) == (503, "service_unavailable")
            async with services.worker("openai", tmp_path, upstreams, listen=address):
                async with asyncio.timeout(PATIENCE):
                    while (await client.ask("GET", "/readyz")).status != 200:
                        pass
                    while (await client.ask("GET", "/v1/models/late")).status != 200:
                        pass
            gone = await client.ask("GET", "/readyz")
            assert (gone.status, gone.json["workers"]) == (503, {"w": False})
