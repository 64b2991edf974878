"""`trestle chat`: a conversation in the terminal, over the gateway's HTTP as any client would."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from typing import Any, Final

from trestle.cli.http import GatewayError, models, request

_KEY_VARIABLE: Final = "TRESTLE_KEY"
_HELP: Final = """\
/model NAME   another model answers from now on      /models   which there are
/system TEXT  the system message (none: without)     /retry    the last answer once more
/clear        forget what was said                   /quit     end (so does Ctrl-D)
Ctrl-C stops an answer. A line that begins with // is said with one."""


def chat(url: str, model: str | None, system: str | None) -> int:
    """Reads a line, streams the answer, and so on until the input ends. model: absent, the gateway's first. The key is
    TRESTLE_KEY's. Returns 1 when the last answer failed, or the gateway cannot be reached."""
    base = url.rstrip("/").removesuffix("/v1")
    key = os.environ.get(_KEY_VARIABLE, "")
    try:
        offered = [model] if model else models(base, key)
    except GatewayError as error:
        todo = f" The key is taken from the environment variable {_KEY_VARIABLE}." if error.status == 401 else ""
        print(f"trestle chat: {error}{todo}", file=sys.stderr)
        return 1
    if not offered:
        print("trestle chat: the gateway offers no model; trestle doctor says which workers answer", file=sys.stderr)
        return 1
    conversation = _Conversation(base, key, offered[0], system or "")
    if conversation.interactive:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401, PLC0415 (lines can then be edited, and called back)
        print(f"{offered[0]} at {base}. Ctrl-C stops an answer, Ctrl-D ends the conversation, /help says more.")
    while (line := _line(conversation.interactive)) is not None and conversation.hear(line):
        pass
    return conversation.status


def _line(interactive: bool) -> str | None:
    """The next line of input; None at its end."""
    try:
        return input("> " if interactive else "")
    except (EOFError, KeyboardInterrupt):
        if interactive:
            print()
        return None


class _Conversation:
    """status: 1 when the last answer failed. interactive: somebody watches."""

    def __init__(self, base: str, key: str, model: str, system: str) -> None:
        self.status = 0
        self.interactive = sys.stdin.isatty()
        self._colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self._base = base
        self._key = key
        self._model = model
        self._system = system
        self._said: list[dict[str, str]] = []

    def hear(self, line: str) -> bool:
        """One line of input, a command or something said; false when it ends the conversation."""
        command, _, rest = line.strip().partition(" ")
        match command:
            case "/quit" | "/exit":
                return False
            case "/help":
                print(_HELP)
            case "/models":
                self._list()
            case "/model":
                self._model = rest.strip() or self._model
                print(f"({self._model} answers)")
            case "/system":
                self._system = rest.strip()
            case "/clear":
                self._said.clear()
            case "/retry":
                self._again()
            case _ if command.startswith("//"):
                self._say(line.strip()[1:])
            case "":
                pass
            case _:
                self._say(line)
        return True

    def _list(self) -> None:
        try:
            for name in models(self._base, self._key):
                print(f"{'*' if name == self._model else ' '} {name}")
        except GatewayError as error:
            print(f"{error}", file=sys.stderr)

    def _again(self) -> None:
        while self._said and self._said[-1]["role"] == "assistant":
            self._said.pop()
        if self._said:
            self._say(self._said.pop()["content"])
        else:
            print("(nothing was said yet)", file=sys.stderr)

    def _say(self, line: str) -> None:
        self._said.append({"role": "user", "content": line})
        try:
            text = self._answer()
        except GatewayError as error:
            print(f"{error}", file=sys.stderr)
            self._said.pop()
            self.status = 1
        except KeyboardInterrupt:
            print("(stopped)")
            self._said.pop()
        else:
            self._said.append({"role": "assistant", "content": text})
            self.status = 0

    def _answer(self) -> str:
        """Prints the answer as it comes, and what it took where somebody watches; returns its text. Raises
        `GatewayError`, also for an answer without its end."""
        system = [{"role": "system", "content": self._system}] if self._system else []
        body = {
            "model": self._model,
            "messages": [*system, *self._said],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        parts: list[str] = []
        usage: dict[str, Any] = {}
        began, first = time.monotonic(), 0.0
        thinking = False
        with request(f"{self._base}/v1/chat/completions", self._key, body) as answer:
            try:
                for chunk in _chunks(answer):
                    usage = chunk.get("usage") or usage
                    for choice in chunk.get("choices") or []:
                        delta = choice.get("delta") or {}
                        # A refusal is an answer too.
                        text = delta.get("content") or delta.get("refusal") or ""
                        thought = delta.get("reasoning_content") or ""
                        first = first or (time.monotonic() if text or thought else 0.0)
                        if thought and self.interactive:
                            print(self._dim(thought), end="", flush=True)
                            thinking = True
                        if text and thinking:
                            print("\n")
                            thinking = False
                        parts.append(text)
                        print(text, end="", flush=True)
            finally:
                print()
        if self.interactive:
            tokens = f"{usage['prompt_tokens']} tokens in, {usage['completion_tokens']} out; " if usage else ""
            waited = f"first after {first - began:.2f} s, " if first else ""
            print(self._dim(f"({tokens}{waited}{time.monotonic() - began:.2f} s in all)"))
        return "".join(parts)

    def _dim(self, text: str) -> str:
        return f"\033[2m{text}\033[0m" if self._colours else text


def _chunks(answer: HTTPResponse) -> Iterator[dict[str, Any]]:
    """The chunks of a stream, up to its proper end. Raises `GatewayError` for an error event or a cut."""
    try:
        for line in answer:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            chunk = json.loads(data)
            if error := chunk.get("error"):
                raise GatewayError(str(error.get("message", error)))
            yield chunk
    except (OSError, HTTPException, ValueError) as error:
        raise GatewayError(f"the answer was cut: {error}") from None
    raise GatewayError("the answer was cut before its end")
