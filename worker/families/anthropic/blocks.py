"""The kinds of content block of an answer, each on its way to chunks. Pure.

A block begins, grows by pieces and ends; one that chat completions have no word for is kept whole, as an extra.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from trestle.openjson import NOTHING, join, members
from trestle.tokens import TokenEstimate
from trestle.v1 import chat_pb2
from worker.families.anthropic import wire
from worker.families.anthropic.plan import Plan
from worker.families.anthropic.turns import KEPT_BLOCKS
from worker.family import Chunks
from worker.request_json import type_of

_DIRECT: Final = b'{"type":"direct"}'


class Answer:
    """What the blocks of one answer share.

    calls: how many calls the client has been told of. chars: how much text. held: in an answer that a JSON tool is to
    carry, text that came beside it, until it is known whether the tool is called. places: where each text stood.
    extra: members of the message itself.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.calls = 0
        self.chars = 0
        self.citations = 0
        self.output = TokenEstimate()
        self.held: dict[int, str] = {}
        self.json_called = False
        self.places: list[dict[str, Any]] = []
        self.extra: dict[str, Raw] = {}

    def tell_text(self, text: str, out: Chunks) -> None:
        self.chars += len(text)
        self.output.add(text)
        out.add(text=text)

    def tell_extra(self, extra: Raw) -> None:
        """Members of the message that have no name in the contract; null says nothing."""
        for name, value in members(extra).items():
            if bytes(value) != b"null":
                self.extra[name] = value

    def keep(self, index: int, block: Mapping[str, Raw], out: Chunks) -> None:
        """A block as an extra of the message, with its place among the blocks."""
        whole = {"index": Raw(b"%d" % index), **block}
        out.add(delta_extra_json=join({KEPT_BLOCKS: Raw(b"[%b]" % join(whole))}))

    def tell_places(self, out: Chunks) -> None:
        """Where each text stood, if other blocks stood between them: to the client they are one text, which could not
        go back to its places."""
        places = self.places
        if places and places[-1]["index"] - places[0]["index"] >= len(places):
            out.add(delta_extra_json=msgspec.json.encode({KEPT_BLOCKS: places}))

    def take_stop_details(self) -> dict[str, Any]:
        """The message's `stop_details`, which belong to the choice, and beside them its explanation as `refusal`."""
        details = self.extra.pop("stop_details", None)
        if details is None:
            return {}
        found: dict[str, Any] = {"stop_details": details}
        if bytes(details)[:1] == b"{":
            explanation = members(details).get("explanation")
            if explanation is not None and bytes(explanation)[:1] == b'"':
                found["refusal"] = msgspec.json.decode(explanation, type=str)
        return found

    def release(self, out: Chunks) -> None:
        """The end: held text is the answer after all where the JSON tool was not called, else kept beside it."""
        for index, text in self.held.items():
            if self.json_called:
                self.keep(index, {"type": Raw(b'"text"'), "text": Raw(msgspec.json.encode(text))}, out)
            else:
                self.tell_text(text, out)
        self.held.clear()


class BlockDecoder:
    """A block of a kind that has a word in the contract."""

    def __init__(self, answer: Answer, index: int, block: wire.Block, whole: bytes) -> None:
        self.answer = answer
        self.index = index
        self.block = block
        self.whole = whole
        self._others: list[Raw] = []

    def begin(self, out: Chunks) -> None:
        """The block's beginning, with what it holds already."""

    def piece(self, piece: wire.Piece, out: Chunks) -> bool:
        """A piece of it; False for one of a type that this kind of block does not know."""
        return False

    def other_piece(self, piece: Raw) -> None:
        """A piece of a type that is not known: kept as it is."""
        self._others.append(piece)

    def end(self, out: Chunks) -> None:
        """The block's end."""
        if self._others:
            self.answer.keep(
                self.index,
                {"type": Raw(msgspec.json.encode(self.block.type)), "deltas": Raw(msgspec.json.encode(self._others))},
                out,
            )


class TextBlock(BlockDecoder):
    """Text, with citations of what it is taken from."""

    def begin(self, out: Chunks) -> None:
        self._start = self.answer.chars
        self._citations = list(self.block.citations or ())
        if self.block.text:
            self._tell(self.block.text, out)

    def piece(self, piece: wire.Piece, out: Chunks) -> bool:
        if piece.type == "text_delta":
            if piece.text:
                self._tell(piece.text, out)
            return True
        if piece.type == "citations_delta" and piece.citation is not NOTHING:
            self._citations.append(piece.citation)
            return True
        return False

    def _tell(self, text: str, out: Chunks) -> None:
        if self.answer.plan.json == "tool":
            held = self.answer.held
            held[self.index] = held.get(self.index, "") + text
        else:
            self.answer.tell_text(text, out)

    def end(self, out: Chunks) -> None:
        super().end(out)
        answer = self.answer
        if answer.plan.json != "tool":
            place = {"start_index": self._start, "end_index": answer.chars}
            answer.places.append({"index": self.index, "type": "text", **place})
        if self._citations:
            self._tell_citations(out)

    def _tell_citations(self, out: Chunks) -> None:
        """Those with a URL as annotations in OpenAI's form; all of them as they are, with the span they stand for."""
        span = {"start_index": self._start, "end_index": self.answer.chars}
        annotations: list[Any] = []
        kept: list[Any] = []
        for raw in self._citations:
            kept.append({"index": self.answer.citations, **span, "citation": raw})
            self.answer.citations += 1
            url, title = _source(raw)
            if url:
                annotations.append({"type": "url_citation", "url_citation": {**span, "url": url, "title": title}})
        extra: dict[str, Any] = {"citations": kept}
        if annotations:
            extra["annotations"] = annotations
        out.add(delta_extra_json=msgspec.json.encode(extra))


class ThinkingBlock(BlockDecoder):
    """Thinking and its seal; redacted thinking is the seal alone."""

    def begin(self, out: Chunks) -> None:
        self._signature = self.block.signature or ""
        if self.block.thinking:
            self._tell(self.block.thinking, out)

    def piece(self, piece: wire.Piece, out: Chunks) -> bool:
        if piece.type == "thinking_delta":
            if piece.thinking:
                self._tell(piece.thinking, out)
            return True
        if piece.type == "signature_delta":
            self._signature += piece.signature or ""
            return True
        return False

    def _tell(self, text: str, out: Chunks) -> None:
        self.answer.output.add(text)
        out.add(reasoning=text)

    def end(self, out: Chunks) -> None:
        super().end(out)
        redacted = (self.block.data or "").encode()
        end = chat_pb2.ReasoningEnd(signature=self._signature, redacted=redacted)
        if self._signature or redacted:
            end.sealed_by = "anthropic"
        out.add(reasoning_end=end)


class ToolBlock(BlockDecoder):
    """A call of one of the client's tools, or the answer in JSON that a tool was made to carry."""

    def begin(self, out: Chunks) -> None:
        answer, plan, name = self.answer, self.answer.plan, self.block.name or ""
        self._pieces: list[str] = []  # of what is not told as it comes
        self._told = False
        answers = plan.json == "tool" and name == plan.json_tool
        self._json = answers and not answer.json_called
        self._custom = name in plan.custom_tools
        # There is one answer in JSON, and the legacy form has room for one call; the API was asked for no more.
        self._beyond = answer.json_called if answers else plan.legacy and answer.calls > 0
        answer.json_called |= answers
        if self._json or self._beyond:
            return
        self._call = answer.calls
        answer.calls += 1
        delta = chat_pb2.ToolCallDelta(index=self._call, name=name, kind=chat_pb2.TOOL_KIND_FUNCTION)
        if plan.legacy:
            delta.kind = chat_pb2.TOOL_KIND_LEGACY_FUNCTION
        else:
            delta.id = self.block.id or f"toolu_{self.index}"
            if self._custom:
                delta.kind = chat_pb2.TOOL_KIND_CUSTOM
        extra = members(self.block.extra) if self.block.extra is not NOTHING else {}
        if b"".join(bytes(extra.get("caller", NOTHING)).split()) in (_DIRECT, b"null"):
            del extra["caller"]
        if extra:
            delta.extra_json = join(extra)
        out.add(tool_call=delta)

    def piece(self, piece: wire.Piece, out: Chunks) -> bool:
        if piece.type != "input_json_delta":
            return False
        if piece.partial_json:
            self._told = True
            self._tell(piece.partial_json, out)
        return True

    def _tell(self, text: str, out: Chunks) -> None:
        if self._json:
            self.answer.tell_text(text, out)
        elif self._custom or self._beyond:
            self._pieces.append(text)
        else:
            self.answer.output.add(text)
            out.add(tool_call=self._delta(text))

    def _delta(self, arguments: str) -> chat_pb2.ToolCallDelta:
        delta = chat_pb2.ToolCallDelta(index=self._call, arguments=arguments)
        if self.answer.plan.legacy:
            delta.kind = chat_pb2.TOOL_KIND_LEGACY_FUNCTION
        elif self._custom:
            delta.kind = chat_pb2.TOOL_KIND_CUSTOM
        return delta

    def end(self, out: Chunks) -> None:
        super().end(out)
        if not self._told:
            # An input without members comes without pieces, and an answer in one piece has its input whole.
            self._tell(bytes(self.block.input).decode() if self.block.input is not NOTHING else "{}", out)
        if self._beyond:
            whole = members(self.whole) | {"input": Raw("".join(self._pieces).encode())}
            self.answer.keep(self.index, whole, out)
        elif self._custom:
            text = _free_text("".join(self._pieces))
            self.answer.output.add(text)
            out.add(tool_call=self._delta(text))


class OtherBlock(BlockDecoder):
    """A block of any other kind: what a server's tool was asked and what it gave. It is kept whole, its input or
    content put together, and told at its end."""

    def begin(self, out: Chunks) -> None:
        self._input: list[str] = []
        self._content: list[str] = []
        self._members: dict[str, Raw] = {}

    def piece(self, piece: wire.Piece, out: Chunks) -> bool:
        if piece.type == "input_json_delta":
            self._input.append(piece.partial_json or "")
            return True
        return False

    def other_piece(self, piece: Raw) -> None:
        """Of a compaction's pieces: the text grows, and of anything else, such as its seal, the last counts."""
        found = members(piece)
        if type_of(found) != "compaction_delta":
            super().other_piece(piece)
            return
        del found["type"]
        content = found.get("content", NOTHING)
        if bytes(content)[:1] == b'"':
            self._content.append(msgspec.json.decode(found.pop("content"), type=str))
        elif bytes(content) == b"null":
            del found["content"]  # a compaction that failed; so the block began
        self._members |= found

    def end(self, out: Chunks) -> None:
        whole = members(self.whole) | self._members
        text = "".join(self._input)
        if text:
            whole["input"] = Raw(text.encode() if _is_json(text) else msgspec.json.encode(text))
        if self._content:
            whole["content"] = Raw(msgspec.json.encode("".join(self._content)))
        if self._others:
            whole["deltas"] = Raw(msgspec.json.encode(self._others))
        self.answer.keep(self.index, whole, out)


KINDS: Final[Mapping[str, Callable[[Answer, int, wire.Block, bytes], BlockDecoder]]] = {
    "text": TextBlock,
    "thinking": ThinkingBlock,
    "redacted_thinking": ThinkingBlock,
    "tool_use": ToolBlock,
}


def _source(citation: Raw) -> tuple[str, str]:
    """URL and title of what is cited; both empty where it is not on the web."""
    try:
        found = wire.CITATION.decode(citation)
    except msgspec.DecodeError:
        return "", ""
    url = found.url or found.source or ""
    return (url, found.title or url) if url.startswith(("http://", "https://")) else ("", "")


def _free_text(input_json: str) -> str:
    """The text in a custom tool's input; the input itself where it is not what was asked for."""
    try:
        found = msgspec.json.decode(input_json.encode(), type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return input_json
    text = found.get("input")
    return text if isinstance(text, str) and len(found) == 1 else input_json


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text.encode(), type=Raw)
    except msgspec.DecodeError:
        return False
    return True
