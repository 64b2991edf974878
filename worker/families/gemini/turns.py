"""The conversation as the API takes it: the system's text apart, turns of user and model in alternation. Pure.

Neighbours of one role become one turn; results of calls are a turn of their own, for newer models refuse or pass over
what stands beside them. A conversation that would be empty or begin with the model's turn, which the API refuses,
begins with the words "(no text)".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Raw

from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2
from worker.families.gemini.content import HINTS, Object, part_of, refused
from worker.families.gemini.plan import Plan, camel, function_name
from worker.request_json import as_object, object_of, text_of, type_of

PLACEHOLDER: Final = "(no text)"
GO_ON: Final = "Continue."
KEPT_PARTS: Final = "content_parts"
"""The extra member of an assistant's message that holds parts which chat completions have no word for."""
UNSEALED: Final = "skip_thought_signature_validator"
"""What Google's documentation says to send for a call whose thought signature is not at hand."""
MADE_ID: Final = "call_gemini_"
"""How ids begin that are ours: the API gave none, and wants none back."""

Part: TypeAlias = Object | Raw
_LONG_NUMBER: Final = re.compile(r"\d{16}")
Slots: TypeAlias = list[list[Part]]


class Conversation:
    """system: the texts of system and developer messages, as parts. turns: (role, parts)."""

    def __init__(self, request: chat_pb2.ChatRequest, plan: Plan) -> None:
        """Raises `CallError` (UNSUPPORTED, INVALID_REQUEST) naming the place in the client's request."""
        self.system: list[Part] = []
        self.turns: list[tuple[str, list[Part]]] = []
        self._plan = plan
        self._called: dict[str, str] = {}  # names of functions by the ids of their calls
        self._shown: list[Part] = []  # media of results, until all results are there
        for i, message in enumerate(request.messages):
            self._message(message, f"messages[{i}]")
        self._show()
        if not plan.traits.system and self.system:
            self._tell_user()
        if not self.turns or self.turns[0][0] != "user":
            self.turns.insert(0, ("user", [{"text": PLACEHOLDER}]))
        if not plan.traits.prefill:
            self._end(request)
        if plan.traits.seals:
            for _, parts in self.turns:
                _seal(parts)

    def encoded(self) -> list[Object]:
        """The `contents` member."""
        return [{"role": role, "parts": parts} for role, parts in self.turns]

    def _message(self, message: chat_pb2.Message, where: str) -> None:
        role = message.role
        if role == chat_pb2.ROLE_USER:
            self._add("user", [part for slot in self._slots(message, where) for part in slot])
        elif role == chat_pb2.ROLE_ASSISTANT:
            self._add("model", self._assistant(message, where))
        elif role in (chat_pb2.ROLE_TOOL, chat_pb2.ROLE_FUNCTION):
            self._result(message, where)
        elif role in (chat_pb2.ROLE_SYSTEM, chat_pb2.ROLE_DEVELOPER):
            for i, part in enumerate(message.parts):
                if part.WhichOneof("part") != "text":
                    raise refused("system messages of anything but text", f"{where}.content[{i}]")
            self.system += [part for slot in self._slots(message, where) for part in slot]
        else:
            raise CallError(Reason.INVALID_REQUEST, f"{where}.role is missing.", param=f"{where}.role")

    def _add(self, role: str, parts: list[Part]) -> None:
        if not parts:
            return
        answers = _answers(parts)
        if not answers:
            self._show()
        if self.turns and self.turns[-1][0] == role and _answers(self.turns[-1][1]) == answers:
            self.turns[-1][1].extend(parts)
        else:
            self.turns.append((role, parts))

    def _show(self) -> None:
        shown, self._shown = self._shown, []
        self._add("user", shown)

    def _tell_user(self) -> None:
        """The system's text where the model knows no such thing: before what the user says."""
        if not self.turns or self.turns[0][0] != "user":
            self.turns.insert(0, ("user", []))
        self.turns[0][1][:0] = self.system
        self.system = []

    def _end(self, request: chat_pb2.ChatRequest) -> None:
        """Newer models refuse a turn of their own as the last, unless it waits for results."""
        role, parts = self.turns[-1]
        if role == "model" and not any(isinstance(part, dict) and "functionCall" in part for part in parts):
            asked = request.messages[-1].role == chat_pb2.ROLE_USER  # without a word
            self.turns.append(("user", [{"text": PLACEHOLDER if asked else GO_ON}]))

    def _slots(self, message: chat_pb2.Message, where: str) -> Slots:
        """What the message's content becomes, one slot for each of its parts: empty where nothing is sent."""
        if message.HasField("text"):
            return [[{"text": message.text}] if message.text else []]
        found = (part_of(part, f"{where}.content[{i}]", self._plan.files) for i, part in enumerate(message.parts))
        return [[] if part is None else [part] for part in found]

    def _assistant(self, message: chat_pb2.Message, where: str) -> list[Part]:
        if message.audio_json:
            raise refused("earlier spoken answers", f"{where}.audio")
        slots = self._slots(message, where)
        if message.HasField("refusal") and message.refusal:
            slots.append([{"text": message.refusal}])
        slots += [[self._call(call, f"{where}.tool_calls[{i}]")] for i, call in enumerate(message.tool_calls)]
        before: Slots = [[] for _ in range(len(slots) + 1)]
        for block in message.reasoning:
            _put_thought(block, slots, before)
        if message.extra_json:
            _put_kept(object_of(message.extra_json, where).get(KEPT_PARTS), f"{where}.{KEPT_PARTS}", before)
        return [part for at, slot in enumerate([*slots, []]) for part in (*before[at], *slot)]

    def _call(self, call: chat_pb2.ToolCall, where: str) -> Part:
        if call.other_json:
            raise refused(f"calls of type {type_of(object_of(call.other_json, where))!r}", where)
        if call.kind == chat_pb2.TOOL_KIND_CUSTOM:
            raise refused("calls of custom tools", where)
        called: Object = {"name": function_name(call.name), "args": as_object(call.arguments, "arguments")}
        if call.id:
            self._called[call.id] = called["name"]
            if not call.id.startswith(MADE_ID):
                called["id"] = call.id
        part: Object = {"functionCall": called}
        extra = object_of(call.extra_json, where)
        part |= {camel(name): value for name, value in extra.items() if camel(name) in HINTS}
        signature = call.signature or _seal_in(extra, where)
        if signature:
            part["thoughtSignature"] = signature
        return part

    def _result(self, message: chat_pb2.Message, where: str) -> None:
        call_id = message.tool_call_id
        texts: list[str] = []
        media: list[Part] = []
        for slot in self._slots(message, where):
            for part in slot:
                if isinstance(part, dict) and "text" in part:
                    texts.append(part["text"])
                else:
                    media.append(part)
        failed = bytes(object_of(message.extra_json, where).get("is_error", b"")) == b"true"
        response: Object = {
            "name": self._called.get(call_id) or function_name(message.name) or call_id or "unknown",
            "response": {"error": "\n".join(texts)} if failed else _answered(texts),
        }
        if call_id in self._called and not call_id.startswith(MADE_ID):
            response["id"] = call_id
        self._add("user", [{"functionResponse": response}])
        for part in media:
            # References may stand in a result on Vertex AI only.
            inside = self._plan.vertex or (isinstance(part, dict) and "inlineData" in part)
            if inside and self._plan.traits.media_results:
                response.setdefault("parts", []).append(part)
            else:
                self._shown.append(part)


def _answers(parts: list[Part]) -> bool:
    """Whether these are results of calls, which stand among their like."""
    return isinstance(parts[0], dict) and "functionResponse" in parts[0]


def _answered(texts: list[str]) -> Part:
    """What a function gave, as the object that the API wants. A number of many digits keeps the whole in a text: in an
    object of the API's it would become a floating point number."""
    if len(texts) == 1 and _LONG_NUMBER.search(texts[0]) is None:
        return as_object(texts[0], "output")
    return {"output": texts[0] if len(texts) == 1 else texts} if texts else {}


def _seal_in(inner: Mapping[str, Raw], where: str) -> str:
    """The seal in the form of Google's own OpenAI-compatible endpoint: `extra_content.google.thought_signature`."""
    for name in ("extra_content", "google"):
        value = inner.get(name)
        if value is None or bytes(value)[:1] != b"{":
            return ""
        inner = object_of(value, where)
    return text_of(inner.get("thought_signature"))


def _put_thought(block: chat_pb2.ReasoningBlock, slots: Slots, before: Slots) -> None:
    """A sealed thought back in its place; a seal without a text belongs to the text before it. What is not sealed is
    not the model's own to the API, and is left out."""
    if not block.signature:
        return
    at = min(block.position, len(slots))
    if block.text:
        before[at].append({"text": block.text, "thought": True, "thoughtSignature": block.signature})
        return
    last = slots[at - 1][0] if at and slots[at - 1] else None
    if isinstance(last, dict) and "text" in last and "thoughtSignature" not in last:
        last["thoughtSignature"] = block.signature
    else:
        before[at].append({"text": "", "thoughtSignature": block.signature})


def _put_kept(kept: Raw | None, where: str, before: Slots) -> None:
    """Parts that the client kept for us, back in their places. Calls that it was not told of are for its eyes only."""
    if kept is None or bytes(kept) == b"null":
        return
    try:
        found = msgspec.json.decode(kept, type=list[dict[str, Raw]])
    except msgspec.DecodeError:
        raise CallError(Reason.INVALID_REQUEST, f"{where}: not a list of parts.", param=where) from None
    for each in found:
        part = each.get("part")
        if part is None or "functionCall" in object_of(part, where):
            continue
        position = bytes(each.get("position", Raw(b"")))
        at = int(position) if position.isdigit() and len(position) < 7 else len(before)
        before[min(at, len(before) - 1)].append(part)


def _seal(parts: Iterable[Part]) -> None:
    """The first call of a step must have a seal; a client that keeps none still gets its answer."""
    first: Any = next((part for part in parts if isinstance(part, dict) and "functionCall" in part), None)
    if first is not None:
        first.setdefault("thoughtSignature", UNSEALED)
