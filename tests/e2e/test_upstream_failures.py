"""What an upstream does wrong, and what the caller is told: by a status before the first byte, by an event after it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.client import Client, ask
from support.upstream import Cut, Framing, Gate, Reply, ScriptedUpstream, chunk, completion, sse, text_stream

pytestmark = pytest.mark.asyncio(loop_scope="session")
both_ways = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])


def said(**error: Any) -> dict[str, Any]:
    return {"error": {"message": "The upstream's words.", "type": "some_type", "param": "n", "code": None, **error}}


# upstream's status, its body -> our status, type, code, param
STATUSES: dict[str, tuple[int, dict[str, Any], int, str, str | None, str | None]] = {
    "400": (400, said(code="a_code"), 400, "invalid_request_error", "a_code", "n"),
    "401": (401, said(code="invalid_api_key"), 502, "bad_gateway", "upstream_credential", None),
    "402": (402, said(), 502, "bad_gateway", "upstream_quota", None),
    "403": (403, said(), 502, "bad_gateway", "upstream_credential", None),
    "404": (404, said(code="model_not_found", param="model"), 404, "invalid_request_error", "model_not_found", "model"),
    "408": (408, said(), 504, "timeout", "upstream_timeout", "n"),
    "409": (409, said(), 400, "invalid_request_error", None, "n"),
    "413": (413, said(), 413, "invalid_request_error", None, "n"),
    "418": (418, said(), 400, "invalid_request_error", None, "n"),
    "422": (422, said(), 400, "invalid_request_error", None, "n"),
    "429": (429, said(), 429, "rate_limit_exceeded", None, "n"),
    "429 without quota": (429, said(code="insufficient_quota"), 429, "insufficient_quota", "insufficient_quota", "n"),
    "500": (500, said(), 502, "bad_gateway", "upstream_failed", "n"),
    "502": (502, said(), 503, "service_unavailable", "upstream_overloaded", "n"),
    "503": (503, said(), 503, "service_unavailable", "upstream_overloaded", "n"),
    "504": (504, said(), 504, "timeout", "upstream_timeout", "n"),
    "529": (529, said(), 503, "service_unavailable", "upstream_overloaded", "n"),
    "context too long": (
        400,
        said(code="context_length_exceeded", param="messages"),
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "messages",
    ),
}


@both_ways
@pytest.mark.parametrize(("status", "body", "ours", "kind", "code", "param"), STATUSES.values(), ids=STATUSES.keys())
async def test_an_error_status(
    status: int,
    body: dict[str, Any],
    ours: int,
    kind: str,
    code: str | None,
    param: str | None,
    streamed: bool,
    client: Client,
    first: ScriptedUpstream,
) -> None:
    first.will(Reply.json(body, status))
    answer = await client.chat(ask(stream=streamed))
    error = answer.error()
    assert (answer.status, error["type"], error["code"], error["param"]) == (ours, kind, code, param)
    if status not in (401, 402, 403):
        assert error["message"] == "The upstream's words."
    assert len(first.requests) == 1


@both_ways
async def test_what_the_error_says_beside_it_comes_too(
    streamed: bool, client: Client, first: ScriptedUpstream
) -> None:
    """As Groq tells what its model wrote for a call: read by SDKs that try again with it."""
    first.will(Reply.json(said(code="tool_use_failed", failed_generation='{"a":\n' * 1000, innererror={"n": [1]}), 400))
    error = (await client.chat(ask(stream=streamed))).error("failed_generation", "innererror")
    assert (error["code"], error["innererror"]) == ("tool_use_failed", {"n": [1]})
    assert error["failed_generation"].startswith('{"a":\n{"a":\n')
    assert error["failed_generation"].endswith("…")


@both_ways
async def test_our_credentials_refusal_shows_nothing_of_it(
    streamed: bool, client: Client, first: ScriptedUpstream
) -> None:
    first.will(Reply.json(said(message="Incorrect API key provided: sk-our-own"), 401))
    answer = await client.chat(ask(stream=streamed))
    assert answer.status == 502
    assert b"sk-" not in answer.body


@both_ways
@pytest.mark.parametrize(
    ("headers", "seconds", "milliseconds"),
    [
        ({"retry_after": "7"}, "7", "7000"),
        ({"retry_after_ms": "1500"}, "2", "1500"),
        ({"retry_after": "Mon, 01 Jan 2001 00:00:00 GMT"}, "0", "0"),
        ({"retry_after": "soon"}, None, None),
        ({}, None, None),
    ],
)
async def test_a_time_to_wait_is_passed_on(
    headers: dict[str, str],
    seconds: str | None,
    milliseconds: str | None,
    streamed: bool,
    client: Client,
    first: ScriptedUpstream,
) -> None:
    first.will(Reply.json(said(), 429, **headers))
    answer = await client.chat(ask(stream=streamed))
    assert answer.status == 429
    assert (answer.headers.get("retry-after"), answer.headers.get("retry-after-ms")) == (seconds, milliseconds)


@both_ways
async def test_an_error_page(streamed: bool, client: Client, first: ScriptedUpstream) -> None:
    page = b"<html>\n<h1>502 Bad Gateway</h1>" + b"x" * 100_000
    first.will(Reply([page], 502, {"content-type": "text/html"}))
    answer = await client.chat(ask(stream=streamed))
    assert answer.status == 503
    assert "502 Bad Gateway" in answer.error()["message"]
    assert len(answer.body) < 2000


@both_ways
async def test_a_redirect_is_not_followed(
    streamed: bool, client: Client, first: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    first.will(Reply([], 307, {"location": second.url + "/chat/completions"}, Framing.LENGTH))
    answer = await client.chat(ask(stream=streamed))
    assert (answer.status, answer.error()["code"]) == (502, "upstream_protocol")
    assert second.requests == []


@both_ways
async def test_nobody_listens(streamed: bool, client: Client) -> None:
    answer = await client.chat(ask("refused", stream=streamed))
    assert (answer.status, answer.error()["type"]) == (503, "service_unavailable")
    assert answer.error()["code"] == "upstream_unreachable"


@both_ways
async def test_no_worker(streamed: bool, client: Client) -> None:
    answer = await client.chat(ask("absent", stream=streamed))
    assert (answer.status, answer.error()["type"]) == (503, "service_unavailable")
    assert answer.error()["code"] == "worker_unavailable"


@both_ways
@pytest.mark.parametrize("cut", list(Cut))
async def test_closed_without_an_answer(cut: Cut, streamed: bool, client: Client, first: ScriptedUpstream) -> None:
    first.will(Reply([b"HTTP/1.1 200 O", cut], framing=Framing.BARE))
    answer = await client.chat(ask(stream=streamed))
    assert (answer.status, answer.error()["code"]) == (503, "upstream_truncated")


@both_ways
async def test_an_answer_that_is_not_http(streamed: bool, client: Client, first: ScriptedUpstream) -> None:
    first.will(Reply([b"SSH-2.0-OpenSSH_9.6\r\n\r\n", Cut.CLOSE], framing=Framing.BARE))
    answer = await client.chat(ask(stream=streamed))
    assert (answer.status, answer.error()["code"]) == (502, "upstream_protocol")


@both_ways
async def test_silence_before_the_answer(streamed: bool, client: Client, first: ScriptedUpstream) -> None:
    first.will(Reply([Gate()], framing=Framing.BARE))
    answer = await client.chat(ask("impatient", stream=streamed))
    assert (answer.status, answer.error()["type"], answer.error()["code"]) == (504, "timeout", "upstream_timeout")
    await (await first.request()).closed()


async def test_silence_in_the_answer(client: Client, first: ScriptedUpstream) -> None:
    first.will(Reply.sse(sse(chunk({"content": "Hel"})), Gate()))
    stream = await client.stream(ask("impatient"))
    assert (stream.text(), stream.done) == ("Hel", False)
    assert stream.error is not None
    assert stream.error["code"] == "upstream_timeout"
    await (await first.request()).closed()


BODY = b"".join(text_stream(["Hel", "lo", "."]))
LAST_EVENT = len(BODY) - len(b"data: [DONE]\n\n")
OFFSETS = {
    "in the first event": 40,
    "between two events": BODY.index(b"\n\n") + 2,
    "in the text": BODY.index(b'"lo"') + 2,
    "before the finish": BODY.index(b'"stop"'),
    "before [DONE]": LAST_EVENT,
    "in [DONE]": len(BODY) - 4,
    "in the last blank line": len(BODY) - 1,
}


@pytest.mark.parametrize("at", OFFSETS.values(), ids=OFFSETS.keys())
@pytest.mark.parametrize("cut", list(Cut))
class TestCut:
    async def test_a_stream(self, at: int, cut: Cut, client: Client, first: ScriptedUpstream) -> None:
        """Never looks like a proper end; by a status where nothing was sent, else by an event."""
        first.will(Reply.sse(BODY[:at], cut))
        answer = await client.chat(ask(stream=True))
        if answer.status == 200:
            assert b"[DONE]" not in answer.body
            assert b'"finish_reason":"stop"' not in answer.body
            error = json.loads(answer.body.split(b"data: ")[-1])["error"]
        else:
            assert answer.status == 503
            error = answer.error()
        assert (error["type"], error["code"]) == ("service_unavailable", "upstream_truncated")

    async def test_a_stream_after_content(self, at: int, cut: Cut, client: Client, first: ScriptedUpstream) -> None:
        gate = Gate()
        first.will(Reply.sse(sse(chunk({"content": "Well. "})), gate, BODY[:at], cut))
        async with client.open(ask()) as answer:
            await answer.text("Well. ")
            gate.set()
            stream = await answer.rest()
        assert not stream.done
        assert stream.error is not None
        assert (stream.error["type"], stream.error["code"]) == ("service_unavailable", "upstream_truncated")
        assert "Well. Hello.".startswith(stream.text())

    async def test_a_folded_stream(self, at: int, cut: Cut, client: Client, first: ScriptedUpstream) -> None:
        first.will(Reply.sse(BODY[:at], cut))
        answer = await client.chat(ask())
        assert (answer.status, answer.error()["code"]) == (503, "upstream_truncated")


@pytest.mark.parametrize("framing", [Framing.CHUNKED, Framing.LENGTH])
@pytest.mark.parametrize("cut", list(Cut))
async def test_a_whole_answer_cut(cut: Cut, framing: Framing, client: Client, first: ScriptedUpstream) -> None:
    body = json.dumps(completion()).encode()
    headers = {"content-type": "application/json"}
    length = {"content-length": str(len(body))} if framing is Framing.LENGTH else {"transfer-encoding": "chunked"}
    head = "".join(f"{name}: {text}\r\n" for name, text in (headers | length).items())
    sent = body if framing is Framing.LENGTH else b"%x\r\n%b\r\n" % (len(body), body)
    wire = b"HTTP/1.1 200 OK\r\n" + head.encode() + b"\r\n" + sent
    first.will(Reply([wire[:-10] if framing is Framing.LENGTH else wire, cut], framing=Framing.BARE))
    answer = await client.chat(ask())
    assert (answer.status, answer.error()["code"]) == (503, "upstream_truncated")


async def test_a_clean_end_without_done_is_an_end(client: Client, first: ScriptedUpstream) -> None:
    first.will(Reply.sse(BODY[:LAST_EVENT]))
    stream = await client.stream(ask())
    assert (stream.text(), stream.done) == ("Hello.", True)


async def test_an_answer_of_events_is_one_whatever_it_calls_itself(client: Client, first: ScriptedUpstream) -> None:
    """Its end is as good where nothing says so but its finish."""
    first.will(Reply([*text_stream(["Hello."])[:-1]], headers={"content-type": "text/plain"}))
    stream = await client.stream(ask())
    assert (stream.text(), stream.done) == ("Hello.", True)


@pytest.mark.parametrize(
    ("kind", "code"), [("text/event-stream", "upstream_truncated"), ("text/plain", "upstream_protocol")]
)
async def test_an_answer_without_a_word(kind: str, code: str, client: Client, first: ScriptedUpstream) -> None:
    first.will(Reply([b": nothing\n\n"], headers={"content-type": kind}))
    answer = await client.chat(ask(stream=True))
    assert answer.error()["code"] == code


async def test_a_cut_answer_is_not_blamed_for_what_it_may_have_become(client: Client, first: ScriptedUpstream) -> None:
    first.will(Reply([b"neither"], headers={"content-type": "text/plain"}, framing=Framing.CLOSE))
    answer = await client.chat(ask(stream=True))
    assert answer.error()["code"] == "upstream_truncated"


async def test_where_only_the_close_ends_the_body_usage_must_have_come(
    client: Client, first: ScriptedUpstream
) -> None:
    with_usage = BODY[:LAST_EVENT]
    without = BODY[: BODY.index(b'"stop"') + len(b'"stop"}]}\n\n')]
    first.will(Reply.sse(with_usage, framing=Framing.CLOSE), Reply.sse(without, framing=Framing.CLOSE))
    good, bad = await client.stream(ask()), await client.stream(ask())
    assert (good.text(), good.done) == ("Hello.", True)
    assert (bad.text(), bad.done) == ("Hello.", False)
    assert bad.error is not None
    assert bad.error["code"] == "upstream_truncated"


async def test_done_ends_a_body_that_only_the_close_would_end(client: Client, first: ScriptedUpstream) -> None:
    first.will(Reply.sse(BODY, framing=Framing.CLOSE))
    assert (await client.stream(ask())).done


async def test_nothing_waits_for_the_body_to_end_after_done(client: Client, first: ScriptedUpstream) -> None:
    gate = Gate()
    first.will(Reply.sse(BODY, gate))
    stream = await client.stream(ask())
    assert (stream.text(), stream.done) == ("Hello.", True)
    gate.set()


MALFORMED = {
    "not JSON": b"data: {\n\n",
    "not an object": b"data: 17\n\n",
    "not UTF-8": b'data: {"choices":[{"index":0,"delta":{"content":"\xff"}}]}\n\n',
    "wrong types": b'data: {"choices":"none"}\n\n',
    "an impossible choice": b'data: {"choices":[{"index":-1,"delta":{"content":"a"}}]}\n\n',
    "an abyss": b"data: " + b"[" * 100_000 + b"\n\n",
}


@pytest.mark.parametrize("event", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_event(event: bytes, client: Client, first: ScriptedUpstream) -> None:
    gate = Gate()
    first.will(Reply.sse(sse(chunk({"content": "Hel"})), gate, event, Gate()))
    async with client.open(ask()) as answer:
        await answer.text("Hel")
        gate.set()
        stream = await answer.rest()
    assert not stream.done
    assert stream.error is not None
    assert (stream.error["type"], stream.error["code"]) == ("bad_gateway", "upstream_protocol")
    await (await first.request()).closed()


@pytest.mark.parametrize("body", [b"", b"{", b"null", b'{"choices":[]}', b'{"choices":null}', b"\xff", b"[1]"])
async def test_a_malformed_answer(body: bytes, client: Client, first: ScriptedUpstream) -> None:
    first.will(Reply([body], 200, {"content-type": "application/json"}, Framing.LENGTH))
    answer = await client.chat(ask())
    assert (answer.status, answer.error()["code"]) == (502, "upstream_protocol")


@both_ways
async def test_an_error_inside_a_good_status(streamed: bool, client: Client, first: ScriptedUpstream) -> None:
    """Before anything was sent it is a status even so."""
    error = said(type="overloaded_error")
    first.will(Reply.sse(sse(error)) if streamed else Reply.json(error))
    answer = await client.chat(ask(stream=streamed))
    assert (answer.status, answer.error()["message"]) == (503, "The upstream's words.")


async def test_an_error_event_after_content(client: Client, first: ScriptedUpstream) -> None:
    first.will(Reply.sse(sse(chunk({"content": "Hel"})), sse(said(type="server_error")), sse("[DONE]")))
    stream = await client.stream(ask())
    assert (stream.text(), stream.done) == ("Hel", False)
    assert stream.error is not None
    assert (stream.error["message"], stream.error["type"]) == ("The upstream's words.", "bad_gateway")


EVENTS = {"content-type": "text/event-stream"}
JSON = {"content-type": "application/json"}


@both_ways
async def test_an_error_that_calls_itself_a_stream(streamed: bool, client: Client, first: ScriptedUpstream) -> None:
    """JSON is what begins like JSON."""
    first.will(Reply([b"\n", json.dumps(said(code=429)).encode()], 200, EVENTS))
    answer = await client.chat(ask(stream=streamed))
    assert (answer.status, answer.error()["message"]) == (429, "The upstream's words.")


@both_ways
async def test_a_stream_that_calls_itself_json(streamed: bool, client: Client, first: ScriptedUpstream) -> None:
    first.will(Reply([BODY], 200, JSON))
    if streamed:
        stream = await client.stream(ask())
        assert (stream.text(), stream.done) == ("Hello.", True)
    else:
        answer = await client.chat(ask())
        assert answer.json["choices"][0]["message"]["content"] == "Hello."


@both_ways
async def test_an_error_status_with_an_event(streamed: bool, client: Client, first: ScriptedUpstream) -> None:
    first.will(Reply([sse(said())], 400, EVENTS))
    answer = await client.chat(ask(stream=streamed))
    assert (answer.status, answer.error()["message"]) == (400, "The upstream's words.")


@pytest.mark.parametrize("end", [b"data: [DONE]", b"data: [DONE]\n", b""])
async def test_a_last_event_without_its_blank_line(end: bytes, client: Client, first: ScriptedUpstream) -> None:
    first.will(Reply.sse(BODY[:LAST_EVENT].rstrip(b"\n") if not end else BODY[:LAST_EVENT] + end))
    stream = await client.stream({**ask(), "stream_options": {"include_usage": True}})
    assert (stream.text(), stream.done) == ("Hello.", True)


async def test_an_error_without_its_blank_line(client: Client, first: ScriptedUpstream) -> None:
    first.will(Reply.sse(sse(chunk({"content": "Hel"})), sse(said(code=503)).rstrip(b"\n")))
    stream = await client.stream(ask())
    assert (stream.text(), stream.done) == ("Hel", False)
    assert stream.error is not None
    assert stream.error["message"] == "The upstream's words."
