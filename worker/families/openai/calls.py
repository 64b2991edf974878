"""The tool calls of OpenAI-like chat answers, however vendors stream them. Pure."""

from __future__ import annotations

import secrets
from typing import Final

import msgspec
from msgspec import Raw

from trestle.errors import CallError, Reason
from trestle.openjson import NOTHING, join, members
from trestle.v1 import chat_pb2
from worker.families.openai import wire

_NULL: Final = b"null"
_MAX_CALLS: Final = 1024


class Calls:
    """The tool calls of one choice: numbers them from 0 as they come, whatever index vendors give them, or to all the
    same, or none; and says the name first, whenever it comes."""

    def __init__(self) -> None:
        self.seen: dict[int, str] = {}  # those that were told: the vendor's ids, or ours where it gave none
        self.legacy = False
        self.named: set[int] = set()  # by the list of calls that is being read
        self._arguments: dict[int, list[str]] = {}
        self._early: dict[int, _Early] = {}  # what came of calls before their names
        self._place: dict[int, int] = {}  # of those that were told, their index
        self._moved: dict[int, int] = {}  # a vendor's index to ours, where it names another call by now
        self._ids: dict[str, int] = {}  # a vendor's id to the highest index of its calls, told or not
        self._told: set[str] = set()  # the vendor's ids of those that were told
        self._highest: int | None = None  # index, of those that were told or came without a name

    def delta(self, piece: wire.ToolCallPiece, position: int) -> chat_pb2.ToolCallDelta | None:
        """The fragment in the contract's terms; None while the call's name is not known."""
        index = self._index(piece, position)
        custom = piece.custom
        if index not in self.seen:
            early = self._early.get(index)
            if custom is None and not (piece.function is not None and piece.function.name):
                if piece.id or not _says_nothing(piece):
                    if early is None:
                        if len(self.seen) + len(self._early) >= _MAX_CALLS:
                            raise _too_many()
                        early = self._early[index] = _Early()
                    early.add(piece)
                    self._note(index, early.id)
                return None
            if early is not None:
                del self._early[index]
                early.add(piece)
                piece = early.whole()
            if len(self.seen) >= _MAX_CALLS:
                raise _too_many()
            delta = self._first(index, piece.id)
            delta.kind = chat_pb2.TOOL_KIND_CUSTOM if custom is not None else chat_pb2.TOOL_KIND_FUNCTION
            delta.name = (custom.name if custom else piece.function.name if piece.function else None) or ""
        else:
            delta = chat_pb2.ToolCallDelta(index=self._place[index])
            if custom is not None:
                delta.kind = chat_pb2.TOOL_KIND_CUSTOM
        self._fill(delta, index, piece)
        return delta

    def left(self) -> list[chat_pb2.ToolCallDelta]:
        """Calls that never had a name."""
        found = []
        early, self._early = self._early, {}
        for index, each in early.items():
            piece = each.whole()
            if not _says_nothing(piece):
                delta = self._first(index, piece.id)
                delta.kind = chat_pb2.TOOL_KIND_FUNCTION
                self._fill(delta, index, piece)
                found.append(delta)
        return found

    def _fill(self, delta: chat_pb2.ToolCallDelta, index: int, piece: wire.ToolCallPiece) -> None:
        """What a fragment says beside who is called."""
        custom = piece.custom
        inner: wire.CustomPiece | wire.FunctionPiece | None
        if custom is not None:
            inner = custom
            delta.arguments = custom.input or ""
        else:
            inner = piece.function
            if piece.function is not None:
                delta.arguments = arguments_of(piece.function)
                if delta.arguments:
                    self._arguments.setdefault(index, []).append(delta.arguments)
        if piece.extra is not NOTHING:
            delta.extra_json = bytes(piece.extra)
        if inner is not None and inner.extra is not NOTHING:
            delta.function_extra_json = bytes(inner.extra)

    def _first(self, index: int, id_: str | None) -> chat_pb2.ToolCallDelta:
        """The beginning of a call. Some vendors repeat id and name on every fragment; the contract says them once. Some
        have one id for all."""
        made = f"call_{secrets.token_hex(12)}"
        delta = chat_pb2.ToolCallDelta(index=len(self._place))
        delta.id = made if not id_ or id_ in self._told else id_
        self.seen[index] = id_ or made
        self._told.add(self.seen[index])
        self._place[index] = delta.index
        self._note(index, id_)
        return delta

    def _note(self, index: int, id_: str | None) -> None:
        self._highest = max(index, self._last(index))
        if id_:
            self._ids[id_] = max(index, self._ids.get(id_, index))

    def _last(self, default: int) -> int:
        return default if self._highest is None else self._highest

    def _index(self, piece: wire.ToolCallPiece, position: int) -> int:
        named = piece.function is not None and bool(piece.function.name)
        numbered = piece.index is not None and 0 <= piece.index < _MAX_CALLS
        if piece.index is not None and numbered:
            index = self._moved.get(piece.index, piece.index)
        elif piece.id:
            index = self._ids.get(piece.id, self._last(-1) + 1)
        elif named:
            index = self._last(-1) + (self._last(-1) not in self._early)
        else:
            index = self._last(position)  # a fragment of the call before it
        if named and index in self.seen and self._begins_another(piece, index):
            index = self._last(-1) + 1
            if piece.index is not None and numbered:
                self._moved[piece.index] = index
        if named:
            self.named.add(index)
        return index

    def _begins_another(self, piece: wire.ToolCallPiece, index: int) -> bool:
        """Whether a fragment with a name is another call than the one whose index it has: by its id; in a list that
        has named that one already; or, as Google's endpoint numbers all calls 0 and may give no id, with arguments
        after arguments that are whole."""
        if piece.id and piece.id != self.seen[index]:
            return True
        if index in self.named:
            return True
        text = arguments_of(piece.function).lstrip() if piece.function is not None else ""
        before = self._arguments.get(index)
        return text[:1] == "{" and before is not None and before[-1].rstrip()[-1:] == "}" and _is_whole("".join(before))


class _Early:
    """What came of a call before its name. id: the vendor's."""

    def __init__(self) -> None:
        self.id: str | None = None
        self._arguments: list[str] = []
        self._name: str | None = None
        self._extra: dict[str, Raw] = {}
        self._inner: dict[str, Raw] = {}

    def add(self, piece: wire.ToolCallPiece) -> None:
        self.id = self.id or piece.id
        if piece.extra is not NOTHING:
            self._extra |= members(piece.extra)
        if piece.function is not None:
            self._name = piece.function.name
            self._arguments.append(arguments_of(piece.function))
            if piece.function.extra is not NOTHING:
                self._inner |= members(piece.function.extra)

    def whole(self) -> wire.ToolCallPiece:
        """All of it as one fragment."""
        arguments = Raw(msgspec.json.encode("".join(self._arguments)))
        function = wire.FunctionPiece(name=self._name, arguments=arguments)
        piece = wire.ToolCallPiece(id=self.id, function=function)
        for of, extra in ((piece, self._extra), (function, self._inner)):
            if extra:
                of.extra = Raw(join(extra))
        return piece


def _too_many() -> CallError:
    return CallError(Reason.UPSTREAM_PROTOCOL, f"The upstream called more than {_MAX_CALLS} tools.")


def _is_whole(arguments: str) -> bool:
    try:
        msgspec.json.decode(arguments, type=dict[str, Raw])
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _says_nothing(piece: wire.ToolCallPiece) -> bool:
    """Whether a fragment has no more than an id, or not even that."""
    function = piece.function
    if piece.custom is not None or piece.extra is not NOTHING:
        return False
    return function is None or not says_something(function)


def says_something(function: wire.FunctionPiece) -> bool:
    """Whether there is more of a function than empty members, as some vendors write them beside text."""
    return bool(function.name or arguments_of(function) or function.extra is not NOTHING)


def arguments_of(piece: wire.FunctionPiece) -> str:
    """The arguments as text, empty for none."""
    raw = bytes(piece.arguments)
    if not raw or raw == _NULL:
        return ""
    if raw[:1] == b'"':
        text: str = msgspec.json.decode(raw, type=str)
        return text
    return raw.decode("utf-8", "replace")  # a vendor's object: its JSON is the text
