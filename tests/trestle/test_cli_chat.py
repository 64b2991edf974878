"""`trestle chat` as a process. The gateway it speaks to is scripted, so that it may also misbehave."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import signal
import sys
import termios
from pathlib import Path

import pytest
from support.upstream import PATIENCE, Cut, Framing, Gate, Reply, ScriptedUpstream

ROOT = Path(__file__).resolve().parents[2]
DONE = b"data: [DONE]\n\n"


def text(words: str) -> bytes:
    return b"data: %b\n\n" % json.dumps({"choices": [{"index": 0, "delta": {"content": words}}]}).encode()


USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}\n\n'


async def chat(gateway: str, lines: str, *arguments: str, key: str = "") -> tuple[int, str, str]:
    """Talks so; returns the exit status, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trestle", "chat", "--url", gateway, *arguments),
        cwd=ROOT,
        # A proxy of the environment must not stand between this machine and itself.
        env={**os.environ, "TRESTLE_KEY": key, "http_proxy": "http://127.0.0.1:1"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        out, errors = await process.communicate(lines.encode())
    assert process.returncode is not None
    return process.returncode, out.decode(), errors.decode()


async def test_a_conversation_carries_what_was_said() -> None:
    async with ScriptedUpstream() as gateway:
        gateway.will(Reply.sse(text("Good "), b": comment\n\n", text("day."), USAGE, DONE))
        gateway.will(Reply.sse(text("Bye."), DONE))
        status, out, errors = await chat(
            gateway.url, "Hello\n\nLeaving\n", "--model", "m", "--system", "Be brief.", key="sk-mine"
        )
        assert (status, out, errors) == (0, "Good day.\nBye.\n", "")
        first, second = gateway.requests
        assert (first.method, first.path) == ("POST", "/v1/chat/completions")
        assert first.headers["authorization"] == "Bearer sk-mine"
        assert first.json == {
            "model": "m",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        assert second.json["messages"][2:] == [
            {"role": "assistant", "content": "Good day."},
            {"role": "user", "content": "Leaving"},
        ]


async def test_without_a_model_the_gateways_first_answers() -> None:
    async with ScriptedUpstream() as gateway:
        gateway.will(Reply.json({"object": "list", "data": [{"id": "first"}, {"id": "second"}]}))
        gateway.will(Reply.sse(text("Hi."), DONE))
        status, out, _ = await chat(gateway.url.removesuffix("/v1"), "Hello\n")
        assert (status, out) == (0, "Hi.\n")
        assert [request.path for request in gateway.requests] == ["/v1/models", "/v1/chat/completions"]
        assert gateway.requests[1].json["model"] == "first"
        assert "authorization" not in gateway.requests[1].headers


async def test_commands_change_the_conversation() -> None:
    lines = ["/help", "One", "/model other", "/system Be kind.", "/retry", "/clear", "//sep", "/models", "/quit", "no"]
    async with ScriptedUpstream() as gateway:
        gateway.will(Reply.sse(text("1"), DONE), Reply.sse(text("2"), DONE), Reply.sse(text("3"), DONE))
        gateway.will(Reply.json({"object": "list", "data": [{"id": "m"}, {"id": "other"}]}))
        status, out, errors = await chat(gateway.url.removesuffix("/v1"), "\n".join(lines), "--model", "m")
        assert (status, errors) == (0, "")
        assert out.startswith("/model NAME ")
        assert out.endswith("1\n(other answers)\n2\n3\n  m\n* other\n")
        first, again, cleared = (request.json for request in gateway.requests if request.body)
    assert first["messages"] == [{"role": "user", "content": "One"}]
    kind = {"role": "system", "content": "Be kind."}
    assert (again["model"], again["messages"]) == ("other", [kind, {"role": "user", "content": "One"}])
    assert cleared["messages"] == [kind, {"role": "user", "content": "/sep"}]


async def test_a_terminal_is_told_more() -> None:
    """Thoughts, what it took, and Ctrl-C that stops an answer and not the conversation."""
    thought = b'data: {"choices": [{"index": 0, "delta": {"reasoning_content": "Hm."}}]}\n\n'
    async with ScriptedUpstream() as gateway:
        gateway.will(Reply.sse(thought, text("Yes."), USAGE, DONE), Reply.sse(text("Endless"), Gate()))
        ours, theirs = pty.openpty()

        def own_terminal() -> None:
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
            # Tests that were started in the background ignore it, and what they start would too.
            signal.signal(signal.SIGINT, signal.SIG_DFL)

        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "trestle", "chat", "--url", gateway.url, "--model", "m"),
            cwd=ROOT,
            env={**os.environ, "TERM": "dumb"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=own_terminal,
        )
        os.close(theirs)
        seen = ""

        async def until(words: str) -> None:
            nonlocal seen
            async with asyncio.timeout(PATIENCE):
                while words not in seen:
                    seen += (await asyncio.to_thread(os.read, ours, 4096)).decode()

        await until("> ")
        os.write(ours, b"Hello?\n")
        await until("s in all)")
        assert "\033[2mHm.\033[0m" in seen
        assert "3 tokens in, 2 out; first after" in seen
        os.write(ours, b"Go on\n")
        await until("Endless")
        os.write(ours, b"\x03")
        await until("(stopped)")
        os.write(ours, b"/quit\n")
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == 0
        os.close(ours)


async def test_a_refused_request_is_told_and_forgotten() -> None:
    error = {"error": {"message": "The model is resting.", "type": "server_error", "param": None, "code": None}}
    async with ScriptedUpstream() as gateway:
        gateway.will(Reply.json(error, 503), Reply.sse(text("Awake."), DONE))
        status, out, errors = await chat(gateway.url, "One\nTwo\n", "--model", "m")
        assert (status, out, errors) == (0, "Awake.\n", "503: The model is resting.\n")
        assert gateway.requests[1].json["messages"] == [{"role": "user", "content": "Two"}]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply.sse(text("Half")), "the answer was cut before its end"),
        (Reply.sse(text("Half"), framing=Framing.CLOSE), "the answer was cut before its end"),
        (Reply.sse(text("Half"), Cut.CLOSE), "the answer was cut"),
        (Reply.sse(text("Half"), b'data: {"error": {"message": "The upstream died."}}\n\n'), "The upstream died."),
        (Reply.sse(text("Half"), b"data: {nonsense\n\n"), "the answer was cut"),
    ],
)
async def test_half_an_answer_is_not_taken_for_one(reply: Reply, words: str) -> None:
    async with ScriptedUpstream() as gateway:
        gateway.will(reply)
        status, out, errors = await chat(gateway.url, "Hello\n", "--model", "m")
        assert (status, out) == (1, "Half\n")
        assert errors.startswith(words)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://{dead}", "Connection refused; is the gateway running (trestle up)"),
        ("ftp://{dead}", "must begin with http:// or https://"),
        ("127.0.0.1:8080", "must begin with http:// or https://"),
    ],
)
async def test_a_gateway_that_is_not_there_is_one_line(url: str, words: str) -> None:
    async with ScriptedUpstream() as gone:
        dead = f"127.0.0.1:{gone.port}"
    status, out, errors = await chat(url.format(dead=dead), "Hello\n")
    assert (status, out) == (1, "")
    assert errors.startswith("trestle chat: ")
    assert words in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply.json({"object": "list", "data": []}), "the gateway offers no model"),
        (Reply.json(["what"]), "the answer is not a list of models"),
        (Reply.json({"error": {"message": "Who are you?"}}, 401), "401: Who are you? The key is taken from"),
        (Reply([b"not json"], 500), "500: not json"),
    ],
)
async def test_a_list_of_no_use_is_told(reply: Reply, words: str) -> None:
    async with ScriptedUpstream() as gateway:
        gateway.will(reply)
        status, _, errors = await chat(gateway.url, "Hello\n")
        assert status == 1
        assert words in errors
