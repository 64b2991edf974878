"""Calls a worker as it is told, with `trestle.client`.

`direct.py SETTINGS` takes a call per line on stdin and says on stdout what came of it, all of it JSON. SETTINGS:
`target`, `tls`, `token`.
"""

from __future__ import annotations

import asyncio
import json
import platform
import sys
from typing import Any

from google.rpc import code_pb2

from trestle.client import CallError, ChatAnswer, ChatRequest, Client, Tls, Usage, chat_request
from trestle.v1 import chat_pb2

Command = dict[str, Any]


def tokens(usage: Usage | None) -> list[int] | None:
    return None if usage is None else [usage.input_tokens, usage.output_tokens]


def told(answer: ChatAnswer) -> Any:
    finish = chat_pb2.FinishReason.Name(answer.finish)
    return {"text": answer.text, "finish": finish, "usage": tokens(answer.usage)}


class Calls:
    """The calls by their words. Each method takes its command; what it returns is the call's answer."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def stream(self, command: Command) -> Any:
        stream = self._client.chat(request(command), **options(command))
        async for chunk in stream:
            if chunk.text:
                say(command, said=chunk.text)
        return told(stream.answer)

    async def complete(self, command: Command) -> Any:
        return told(await self._client.complete(request(command), **options(command)))

    async def leave(self, command: Command) -> Any:
        async for chunk in self._client.chat(request(command), **options(command)):
            if chunk.text:
                return chunk.text
        return None

    async def models(self, command: Command) -> Any:
        return [model.id for model in await self._client.models(**options(command))]


def request(command: Command) -> ChatRequest:
    return chat_request(command["request"]["model"], command["request"]["text"])


def options(command: Command) -> Any:
    return {"timeout": command["timeout"]} if "timeout" in command else {}


def say(command: Command, **word: Any) -> None:
    print(json.dumps({"call": command["call"], **word}), flush=True)


def described(error: CallError) -> dict[str, Any]:
    return {
        "status": error.status,
        "message": error.message,
        "reason": error.reason.value,
        "param": error.param,
        "retry_after": error.retry_after,
        "upstream_status": error.upstream_status,
        "upstream_request_id": error.upstream_request_id,
        "usage": tokens(error.usage),
    }


async def make(calls: Calls, command: Command) -> None:
    try:
        say(command, answer=await getattr(calls, command["do"])(command))
    except CallError as error:
        say(command, raised=described(error))
    except asyncio.CancelledError:
        say(command, raised={"status": code_pb2.CANCELLED})  # asyncio has a word of its own for it


async def main() -> None:
    settings = json.loads(sys.argv[1])
    tls = Tls(**settings["tls"]) if settings["tls"] else None
    running: dict[int, asyncio.Task[None]] = {}
    async with Client(settings["target"], tls=tls, token=settings["token"]) as client:
        calls = Calls(client)
        print(json.dumps({"runtime": f"Python {platform.python_version()}"}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            command = json.loads(line)
            if command["do"] == "abort":
                running[command["call"]].cancel()
            else:
                running[command["call"]] = asyncio.create_task(make(calls, command))


asyncio.run(main())
