"""The conversation as the API takes it: system text apart, turns of user and assistant in alternation. Pure.

Adjacent messages of one role become one turn; results of tools stand in the user's. Where OpenAI's form allows what
this API refuses (no user turn at all, an assistant's turn first), a turn of the words "(no text)" keeps the place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2
from worker.families.anthropic.content import (
    Block,
    Object,
    add_hints,
    blocks_of,
    is_blank,
    refuse,
)
from worker.families.anthropic.plan import Plan
from worker.request_json import as_object, object_of, type_of

PLACEHOLDER: Final = "(no text)"
GO_ON: Final = "Continue."
KEPT_BLOCKS: Final = "content_blocks"
"""The extra member of an assistant's message that holds blocks which chat completions have no word for."""

_DIGITS: Final = 10
_SAFE_ID: Final = re.compile(r"[A-Za-z0-9_-]+")
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_-]")
_CACHE: Final = frozenset({"cache_control"})
_RESULT_HINTS: Final = frozenset({"cache_control", "is_error", "toolset_name"})
_CALL_HINTS: Final = frozenset({"cache_control", "caller", "toolset_name"})


class _CallIds:
    """Ids of calls as the API wants them: of few characters, each used once, answered by their results."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._times: dict[str, int] = {}  # how often an id was wanted
        self._waiting: dict[str, list[str]] = {}  # by the client's id, or by a legacy function's name: not answered yet
        self._answered: dict[str, str] = {}

    def call(self, client_id: str, name: str) -> str:
        """The id for a call; `client_id` is empty for a legacy function call."""
        wanted = _UNSAFE.sub("_", client_id) or f"call_{len(self._used)}"
        given = wanted
        while given in self._used:
            self._times[wanted] = self._times.get(wanted, 1) + 1
            given = f"{wanted}_{self._times[wanted]}"
        self._used.add(given)
        self._waiting.setdefault(client_id or f"function {name}", []).append(given)
        return given

    def result(self, client_id: str, name: str) -> str:
        """The id of the call that a result answers; a result of no known call keeps its own, for the API to judge."""
        key = client_id or f"function {name}"
        waiting = self._waiting.get(key)
        if waiting:
            self._answered[key] = waiting.pop(0)
        if key in self._answered:
            return self._answered[key]
        found = _SAFE_ID.fullmatch(client_id)
        return client_id if found else _UNSAFE.sub("_", client_id) or "call_unknown"


class Conversation:
    """system: the system and developer texts, as blocks in order. turns: (role, blocks). calls: the names of the tools
    that were called in it."""

    def __init__(self, request: chat_pb2.ChatRequest, plan: Plan) -> None:
        """Raises `CallError` (UNSUPPORTED, INVALID_REQUEST) naming the place in the client's request."""
        self.system: list[Block] = []
        self.turns: list[tuple[str, list[Block]]] = []
        self.calls: dict[str, None] = {}
        self._ids = _CallIds()
        self._plan = plan
        for i, message in enumerate(request.messages):
            self._message(message, f"messages[{i}]")
        if not self.turns or self.turns[0][0] != "user":
            self.turns.insert(0, ("user", [{"type": "text", "text": PLACEHOLDER}]))
        self._end()

    def encoded_system(self) -> str | list[Block] | None:
        """The `system` member, None for none."""
        return _short(self.system) if self.system else None

    def encoded_turns(self) -> list[Object]:
        """The `messages` member."""
        return [{"role": role, "content": _short(blocks)} for role, blocks in self.turns]

    def _message(self, message: chat_pb2.Message, where: str) -> None:
        role = message.role
        if role == chat_pb2.ROLE_USER:
            self._add("user", self._hinted(message, blocks_of(message, where), where))
        elif role == chat_pb2.ROLE_ASSISTANT:
            self._add("assistant", self._assistant(message, where))
        elif role in (chat_pb2.ROLE_TOOL, chat_pb2.ROLE_FUNCTION):
            self._add("user", [self._result(message, where)])
        elif role in (chat_pb2.ROLE_SYSTEM, chat_pb2.ROLE_DEVELOPER):
            self._system(message, where)
        else:
            raise CallError(Reason.INVALID_REQUEST, f"{where}.role is missing.", param=f"{where}.role")

    def _add(self, role: str, blocks: list[Block]) -> None:
        if not blocks:
            return
        if self.turns and self.turns[-1][0] == role:
            self.turns[-1][1].extend(blocks)
        else:
            self.turns.append((role, blocks))

    def _hinted(self, message: chat_pb2.Message, blocks: list[Block], where: str) -> list[Block]:
        """The blocks with a hint on the message as one on its last block."""
        if message.extra_json and blocks and isinstance(blocks[-1], dict):
            add_hints(blocks[-1], message.extra_json, _CACHE, where)
        return blocks

    def _system(self, message: chat_pb2.Message, where: str) -> None:
        for i, part in enumerate(message.parts):
            if part.WhichOneof("part") != "text":
                raise refuse("system messages of anything but text", f"{where}.content[{i}]")
        self.system += self._hinted(message, blocks_of(message, where), where)

    def _assistant(self, message: chat_pb2.Message, where: str) -> list[Block]:
        if message.audio_json:
            raise refuse("earlier spoken answers", f"{where}.audio")
        said = blocks_of(message, where)
        if message.HasField("refusal") and not is_blank(message.refusal):
            said.append({"type": "text", "text": message.refusal})
        said += [self._call(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(message.tool_calls)]
        self._hinted(message, said, where)
        if message.reasoning and self._plan.keeps_thinking:
            said = _with_thinking(said, message)
        kept = object_of(message.extra_json, where).get(KEPT_BLOCKS)
        return said if kept is None else _with_kept(said, kept, f"{where}.{KEPT_BLOCKS}")

    def _call(self, call: chat_pb2.ToolCall, where: str) -> Object:
        if call.other_json:
            raise refuse(f"calls of type {type_of(object_of(call.other_json, where))!r}", where)
        self.calls[call.name] = None
        custom = call.kind == chat_pb2.TOOL_KIND_CUSTOM
        block: Object = {
            "type": "tool_use",
            "id": self._ids.call(call.id, call.name),
            "name": call.name,
            "input": {"input": call.arguments} if custom else as_object(call.arguments, "arguments"),
        }
        if call.extra_json:
            add_hints(block, call.extra_json, _CALL_HINTS, where)
        return block

    def _result(self, message: chat_pb2.Message, where: str) -> Object:
        block: Object = {
            "type": "tool_result",
            "tool_use_id": self._ids.result(message.tool_call_id, message.name),
        }
        content = blocks_of(message, where)
        if content:
            block["content"] = _short(content)
        if message.extra_json:
            add_hints(block, message.extra_json, _RESULT_HINTS, where)
        return block

    def _end(self) -> None:
        """An answer that is to go on. The API refuses white space at its end, and newer models refuse to go on with a
        text at all: they are asked to. A turn that they have paused they take up by themselves."""
        role, blocks = self.turns[-1]
        last = blocks[-1]
        if role == "assistant" and isinstance(last, dict) and last["type"] == "text":
            if self._plan.traits.prefill:
                last["text"] = last["text"].rstrip()
            else:
                self._add("user", [{"type": "text", "text": GO_ON}])


def _short(blocks: list[Block]) -> Any:
    """A lone plain text as a string, which is the same to the API."""
    only = blocks[0]
    if len(blocks) == 1 and isinstance(only, dict) and only["type"] == "text" and len(only) == 2:
        return only["text"]
    return blocks


def _with_thinking(said: list[Block], message: chat_pb2.Message) -> list[Block]:
    """The blocks with earlier thinking back in its place. Thinking without its seal is not the model's own to the API,
    which refuses it: it is left out."""
    shown = len(message.parts) or (1 if message.HasField("text") else 0)
    left_out = shown + len(message.tool_calls) - len(said)  # blank texts count in positions
    out: list[Block] = []
    at = 0
    for block in message.reasoning:
        place = max(at, min(max(0, int(block.position) - max(0, left_out)), len(said)))
        out += said[at:place]
        at = place
        if block.redacted:
            out.append({"type": "redacted_thinking", "data": block.redacted.decode("utf-8", "replace")})
        elif block.signature:
            out.append({"type": "thinking", "thinking": block.text, "signature": block.signature})
    return out + said[at:]


def _with_kept(said: list[Block], kept: Raw, where: str) -> list[Block]:
    """The blocks with those that the client kept for us back at their index."""
    try:
        blocks = msgspec.json.decode(kept, type=list[dict[str, Raw]])
    except msgspec.DecodeError:
        raise CallError(Reason.INVALID_REQUEST, f"{where}: not a list of blocks.", param=where) from None
    places = {_number(block, "index"): block for block in blocks if _is_place(block)}
    if places:
        texts = [block for block in said if isinstance(block, dict) and block["type"] == "text"]
        ends = {_number(place, "end_index") for place in places.values()}
        if len(texts) == 1 and max(ends) == len(texts[0]["text"]):  # else it is another text by now
            return _in_places(said, texts[0], places, blocks)
    out = list(said)
    for block in blocks:
        found = _as_it_was(block)
        if found is not None:
            index = _number(block, "index", len(out))
            out.insert(min(index, len(out)), found)
    return out


def _in_places(
    said: list[Block], text: Object, places: Mapping[int, Mapping[str, Raw]], kept: list[dict[str, Raw]]
) -> list[Block]:
    """The blocks where each text between others is a block of its own again. Who is not told by an index stands, in
    its order, where none is told."""
    at: dict[int, Block | None] = {}
    for block in kept:
        at.setdefault(_number(block, "index", len(kept) + len(said)), _as_it_was(block))
    last = max(places)
    for index, place in places.items():
        words = text["text"][_number(place, "start_index") : _number(place, "end_index")]
        hints = text if index == last else {"type": "text"}
        at[index] = {**hints, "text": words} if words and not words.isspace() else None
    others = [block for block in said if block is not text]
    out: list[Block] = []
    free = 0  # the first place that is not taken
    for index in sorted(at):
        between = max(0, index - free)
        out += others[:between]
        others = others[between:]
        found = at[index]
        if found is not None:
            out.append(found)
        free = index + 1
    return out + others


def _is_place(block: Mapping[str, Raw]) -> bool:
    return type_of(block) == "text" and "text" not in block


def _as_it_was(block: Mapping[str, Raw]) -> Block | None:
    """What goes back of a block that the client kept. Two kinds are only for its eyes: a call that it was not asked to
    make, and pieces of a block that we could not put together."""
    if _is_place(block) or type_of(block) == "tool_use" or "deltas" in block:
        return None
    return Raw(msgspec.json.encode({name: value for name, value in block.items() if name != "index"}))


def _number(block: Mapping[str, Raw], name: str, default: int = 0) -> int:
    value = bytes(block.get(name, b""))
    return int(value) if len(value) < _DIGITS and value.isdigit() else default
