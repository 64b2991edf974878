"""`trestle up` in earnest: processes, ports, signals; behind its worker a scripted upstream."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import pty
import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support import services
from support.ports import free_port
from support.upstream import PATIENCE, Gate, Reply, ScriptedUpstream

ROOT = Path(__file__).resolve().parents[2]
CHUNK = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"scripted","choices":[%b]}\n\n'


class Up:
    """A running `trestle up`. output: what it and its services have said so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output = ""

    async def until(self, words: str) -> str:
        """Reads until it has said so; returns everything since its start."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while words not in self.output:
                line = await self.process.stdout.readline()
                assert line, f"it ended without saying {words!r}:\n{self.output}"
                self.output += line.decode()
        return self.output

    async def end(self) -> int:
        """Reads on until it has ended; returns its exit status."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            self.output += (await self.process.stdout.read()).decode()
            return await self.process.wait()

    def children(self) -> dict[str, int]:
        """Process ids of its services, by their modules."""
        found = {}
        for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            found[arguments[arguments.index("-m") + 1]] = int(pid)
        return found


@asynccontextmanager
async def up(folder: Path, config: Mapping[str, Any], *arguments: str, **environment: str) -> AsyncIterator[Up]:
    file = folder / "trestle.yaml"
    file.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trestle", "up", "--config", str(file), *arguments),
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    running = Up(process)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await running.end()


def configured(upstream: ScriptedUpstream, **gateway: Any) -> dict[str, Any]:
    """An openai worker before this upstream; the gateway on a port of the kernel's choice."""
    settings = {"listen": "127.0.0.1:0", "auth": "open", "workers": {"openai": f"127.0.0.1:{free_port()}"}, **gateway}
    upstreams = {"scripted": {"base_url": upstream.url, "models": ["scripted-model"]}}
    return {"gateway": settings, "worker": {"openai": {"upstreams": upstreams}}}


def refuses(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) != 0


def gone(children: Mapping[str, int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in children.values())


async def run_printed_curl(output: str) -> Any:
    """Does what the printed command line says, by another client."""
    _, _, command = output.partition("Try it:")
    words = shlex.split(command.partition("\n\n")[0])
    assert words[0] == "curl"
    headers = dict(words[i + 1].split(": ", 1) for i, word in enumerate(words) if word == "-H")
    body = words[words.index("-d") + 1]
    async with aiohttp.ClientSession() as session, session.post(words[1], headers=headers, data=body) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


ANSWER = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "scripted-model",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Good day."}, "finish_reason": "stop"}],
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_serves_says_how_and_stops_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    async with ScriptedUpstream() as upstream:
        config = configured(upstream)
        async with up(tmp_path, config) as running:
            output = await running.until("Ctrl-C stops it.")
            assert "models: scripted-model\n" in output
            upstream.will(Reply.json(ANSWER))
            answer = await run_printed_curl(output)
            assert answer["choices"][0]["message"]["content"] == "Good day."
            children = running.children()
            assert children.keys() == {"gateway", "worker"}
            running.process.send_signal(number)
            assert await running.end() == 0
        assert refuses(config["gateway"]["workers"]["openai"])
        assert gone(children)


async def test_listen_takes_the_place_of_the_files(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        config = configured(upstream, listen="203.0.113.1:1")
        address = f"127.0.0.1:{free_port()}"
        async with up(tmp_path, config, "--listen", address) as running:
            assert f"serves http://{address}\n" in await running.until("Ctrl-C stops it.")


async def test_a_key_is_used_but_never_shown(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        config = configured(upstream, auth="keys", keys=[{"name": "dev", "key_env": "UP_KEY"}])
        async with up(tmp_path, config, UP_KEY="a-secret-of-this-test") as running:
            output = await running.until("Ctrl-C stops it.")
            assert "models: scripted-model\n" in output
            assert '-H "Authorization: Bearer $UP_KEY"' in output
            assert "a-secret-of-this-test" not in output


async def test_without_a_key_it_does_not_ask_itself(tmp_path: Path) -> None:
    """Its own gateway would only write down that somebody came without one."""
    async with ScriptedUpstream() as upstream:
        keys = [{"name": "ci", "sha256": hashlib.sha256(b"elsewhere").hexdigest()}]
        async with up(tmp_path, configured(upstream, auth="keys", keys=keys)) as running:
            output = await running.until("Ctrl-C stops it.")
            assert "models: for those who show a key\n" in output
            assert '{"model": "MODEL", ' in output
            assert "UNAUTHENTICATED" not in running.output


async def test_a_family_without_its_credential_is_left_out_and_the_rest_serves(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        config = configured(upstream)
        config["gateway"]["workers"]["anthropic"] = f"127.0.0.1:{free_port()}"
        config["gateway"]["models"] = [
            {"name": "both", "targets": [{"worker": "anthropic", "model": "a"}, {"worker": "openai", "model": "o"}]},
            {"name": "gone", "targets": [{"worker": "anthropic", "model": "a"}]},
        ]
        secret = {"base_url": "http://127.0.0.1:1", "credential_env": "UP_UNSET"}
        config["worker"]["anthropic"] = {"upstreams": {"secret": secret}}
        async with up(tmp_path, config, UP_UNSET="") as running:
            output = await running.until("Ctrl-C stops it.")
            assert "worker anthropic is left out: UP_UNSET is not set\n" in output
            assert "models: both\n" in output


async def test_with_no_worker_left_it_says_so(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        config = configured(upstream)
        config["worker"]["openai"]["upstreams"]["scripted"]["credential_env"] = "UP_UNSET"
        async with up(tmp_path, config, UP_UNSET="") as running:
            assert await running.end() == 2
            assert "worker openai is left out: UP_UNSET is not set\n" in running.output
            assert "gateway.workers names no worker that can be started; set one of these" in running.output


@pytest.mark.parametrize(("module", "name"), [("worker", "worker openai"), ("gateway", "gateway")])
async def test_a_service_that_dies_is_reported_and_ends_the_rest(tmp_path: Path, module: str, name: str) -> None:
    async with ScriptedUpstream() as upstream, up(tmp_path, configured(upstream)) as running:
        await running.until("Ctrl-C stops it.")
        children = running.children()
        os.kill(children[module], signal.SIGKILL)
        assert await running.end() == 1
        assert f"{name} ended with status -9; stopping the rest\n" in running.output
        assert gone(children)


@pytest.mark.parametrize("service", ["gateway", "worker openai"])
async def test_a_taken_port_is_named(tmp_path: Path, service: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with ScriptedUpstream() as upstream:
            key = {"listen": address} if service == "gateway" else {"workers": {"openai": address}}
            async with up(tmp_path, configured(upstream, **key)) as running:
                assert await running.end() == 1
                assert f"cannot listen on {address}" in running.output
                setting = "gateway.listen" if service == "gateway" else "gateway.workers.openai"
                where = f"(it listens where {setting} says)"
                assert f"{service} ended with status 2; stopping the rest {where}\n" in running.output


async def test_a_worker_of_no_family_is_named_with_those_there_are(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        config = configured(upstream, workers={"mistral": "127.0.0.1:0"})
        async with up(tmp_path, config) as running:
            assert await running.end() == 1
            assert "worker mistral: there is no such family; there are anthropic, echo, " in running.output


async def test_a_mistake_in_the_file_is_told_by_its_service(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, up(tmp_path, configured(upstream, timeot=1)) as running:
        assert await running.end() == 1
        assert "gateway: gateway.timeot: is not a known key; did you mean timeout?\n" in running.output


async def test_an_open_answer_may_finish_first(tmp_path: Path) -> None:
    gate = Gate()
    first = CHUNK % b'{"index":0,"delta":{"content":"Good "},"finish_reason":null}'
    last = CHUNK % b'{"index":0,"delta":{"content":"day."},"finish_reason":"stop"}'
    async with ScriptedUpstream() as upstream, up(tmp_path, configured(upstream)) as running:
        base = (await running.until("Ctrl-C stops it.")).partition("serves ")[2].split()[0]
        upstream.will(Reply.sse(first, gate, last, b"data: [DONE]\n\n"))
        body = {"model": "scripted-model", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        url = f"{base}/v1/chat/completions"
        async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
            await answer.content.readuntil(b"Good ")
            running.process.send_signal(signal.SIGINT)
            await running.until("stopping")
            gate.set()
            assert (await answer.content.read()).endswith(b"data: [DONE]\n\n")
        assert await running.end() == 0


async def test_asked_twice_it_ends_at_once(tmp_path: Path) -> None:
    first = CHUNK % b'{"index":0,"delta":{"content":"Good "},"finish_reason":null}'
    async with ScriptedUpstream() as upstream, up(tmp_path, configured(upstream)) as running:
        base = (await running.until("Ctrl-C stops it.")).partition("serves ")[2].split()[0]
        upstream.will(Reply.sse(first, Gate()))
        body = {"model": "scripted-model", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        url = f"{base}/v1/chat/completions"
        async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
            await answer.content.readuntil(b"Good ")
            children = running.children()
            running.process.send_signal(signal.SIGINT)
            await running.until("stopping")
            running.process.send_signal(signal.SIGINT)
            assert await running.end() == 1
        assert gone(children)


class Terminal:
    """`trestle up` in a terminal."""

    def __init__(self, process: asyncio.subprocess.Process, terminal: int) -> None:
        self.process = process
        self._terminal = terminal

    async def until(self, words: str) -> str:
        """Reads until it shows so, from what it showed when this was asked last; returns what came since."""
        new = ""
        async with asyncio.timeout(PATIENCE):
            while words not in new:
                new += (await asyncio.to_thread(os.read, self._terminal, 4096)).decode()
        return new


@asynccontextmanager
async def terminal(folder: Path, config: Mapping[str, Any]) -> AsyncIterator[Terminal]:
    file = folder / "trestle.yaml"
    file.write_text(json.dumps(config), encoding="utf-8")
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trestle", "up", "--config", str(file)),
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm", "NO_COLOR": "1"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = Terminal(process, ours)
    yield shown
    process.send_signal(signal.SIGTERM)
    await shown.until("stopping")
    async with asyncio.timeout(PATIENCE):
        assert await process.wait() == 0
    os.close(ours)


async def test_a_terminal_is_shown_how_they_are(tmp_path: Path) -> None:
    gate = Gate()
    first = CHUNK % b'{"index":0,"delta":{"content":"Good day."},"finish_reason":"stop"}'
    async with ScriptedUpstream() as upstream, terminal(tmp_path, configured(upstream)) as shown:
        base = (await shown.until("Ctrl-C stops it.")).partition("serves ")[2].split()[0]
        assert "\r\033[Kup " in await shown.until("0 open  openai ok")
        upstream.will(Reply.sse(first, gate, b"data: [DONE]\n\n"))
        body = {"model": "scripted-model", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        url = f"{base}/v1/chat/completions"
        async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
            await answer.content.readuntil(b"Good ")
            await shown.until("1 open  openai ok")
            gate.set()
            assert (await answer.content.read()).endswith(b"data: [DONE]\n\n")
        await shown.until("0 open  openai ok")


async def test_a_terminal_is_shown_who_is_gone_and_who_is_back(tmp_path: Path) -> None:
    options: dict[str, Any] = {"config": {"worker": {}}, "folder": tmp_path}
    address = f"127.0.0.1:{free_port()}"
    elsewhere = await services.start("worker", "worker", "echo", listen=address, **options)
    try:
        # Of an address like this it does not know that it is this machine's own.
        workers = {"echo": f"ipv4:{address}"}
        config = {"gateway": {"auth": "open", "listen": "127.0.0.1:0", "workers": workers}}
        async with terminal(tmp_path, config) as shown:
            await shown.until("echo ok")
            await elsewhere.kill()
            await shown.until("echo DOWN")
            elsewhere = await services.start("worker", "worker", "echo", listen=address, **options)
            await shown.until("echo ok (back for ")
    finally:
        await elsewhere.stop()
