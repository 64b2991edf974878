"""Chunks to one answer: what the gateway answers a non-stream request with, and what a caller of `complete` gets.

Pure, and free of everything but the contract. Extras fold so: the last value of a member wins; an array of objects
with an `index` merges by index, where texts that come in pieces (`text`, `summary`, `data`, `arguments`, `thinking`)
are concatenated; `annotations` are concatenated, and so is each array in a choice's `logprobs`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from trestle.rawjson import join_array, join_object, split_array, split_object, value_of
from trestle.v1 import chat_pb2, completion_pb2

_IN_PIECES: Final = frozenset({"text", "summary", "data", "arguments", "thinking"})


@dataclass(slots=True)
class FoldedCall:
    """One tool call, whole."""

    id: str = ""
    name: str = ""
    kind: chat_pb2.ToolKind.ValueType = chat_pb2.TOOL_KIND_UNSPECIFIED
    arguments: str = ""
    signature: str = ""
    sealed_by: str = ""
    extra: dict[str, str] = field(default_factory=dict)
    function_extra: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class FoldedReasoning:
    """One block of thinking, whole."""

    text: str = ""
    signature: str = ""
    redacted: bytes = b""
    sealed_by: str = ""
    position: int = 0
    ended: bool = False


@dataclass(slots=True)
class FoldedChoice:
    """One choice, whole. text, refusal: None when nothing of the kind was said. calls: by index. extra, delta_extra:
    verbatim JSON by member."""

    text: str | None = None
    refusal: str | None = None
    reasoning: list[FoldedReasoning] = field(default_factory=list)
    calls: dict[int, FoldedCall] = field(default_factory=dict)
    audio: chat_pb2.AudioDelta | None = None
    logprobs: chat_pb2.Logprobs | None = None
    finish: chat_pb2.Finish | None = None
    extra: dict[str, str] = field(default_factory=dict)
    delta_extra: dict[str, str] = field(default_factory=dict)
    pieces: list[str] = field(default_factory=list, repr=False)
    own_logprobs: list[str] = field(default_factory=list, repr=False)


class AnswerFold:
    """Feeds on the chunks of one answer in order; its attributes are the answer so far.

    started: None until it came. choices: by index. usage: the last one. extra: verbatim JSON by member.
    """

    def __init__(self) -> None:
        self.started: chat_pb2.Started | None = None
        self.choices: dict[int, FoldedChoice] = {}
        self.usage: chat_pb2.Usage | None = None
        self.extra: dict[str, str] = {}

    def feed(self, chunks: Iterable[chat_pb2.ChatChunk]) -> None:
        """Takes the next chunks."""
        for chunk in chunks:
            event = chunk.WhichOneof("event")
            if event == "text" and not chunk.HasField("logprobs"):
                self._choice(chunk.choice).pieces.append(chunk.text)
            elif event == "started":
                self.started = chunk.started
            elif event == "usage":
                self.usage = chunk.usage
            else:
                self._take(chunk, event)
            if chunk.answer_extra_json:
                merge(self.extra, chunk.answer_extra_json)
            if chunk.choice_extra_json:
                _fold_extra(self._choice(chunk.choice), chunk.choice_extra_json)
            if chunk.delta_extra_json:
                merge(self._choice(chunk.choice).delta_extra, chunk.delta_extra_json)

    def close(self) -> None:
        """The stream has ended well: the texts are made whole, and the logprobs in a vendor's own form."""
        for choice in self.choices.values():
            if choice.pieces:
                choice.text = "".join(choice.pieces)
                choice.pieces.clear()
            if choice.own_logprobs:
                choice.extra["logprobs"] = _join_logprobs(choice.own_logprobs)
                choice.own_logprobs.clear()

    @property
    def whole(self) -> bool:
        """Whether it began and every choice has its finish: what a proper end has shown."""
        choices = self.choices.values()
        return self.started is not None and bool(choices) and all(choice.finish is not None for choice in choices)

    def _choice(self, index: int) -> FoldedChoice:
        choice = self.choices.get(index)
        if choice is None:
            choice = self.choices[index] = FoldedChoice()
        return choice

    def _take(self, chunk: chat_pb2.ChatChunk, event: str | None) -> None:
        choice = self._choice(chunk.choice)
        if event == "text":
            choice.pieces.append(chunk.text)
        elif event == "finish":
            choice.finish = chunk.finish
        elif event == "reasoning":
            _open_block(choice).text += chunk.reasoning
        elif event == "reasoning_end":
            block = _open_block(choice)
            block.signature, block.redacted = chunk.reasoning_end.signature, chunk.reasoning_end.redacted
            block.sealed_by = chunk.reasoning_end.sealed_by
            block.ended = True
        elif event == "refusal":
            choice.refusal = (choice.refusal or "") + chunk.refusal
        elif event == "tool_call":
            _fold_call(choice, chunk.tool_call)
        elif event == "audio":
            _fold_audio(choice, chunk.audio)
        if chunk.HasField("logprobs"):
            if choice.own_logprobs:
                choice.own_logprobs.append(_logprobs_json(chunk.logprobs))
                return
            if choice.logprobs is None:
                choice.logprobs = chat_pb2.Logprobs()
            choice.logprobs.MergeFrom(chunk.logprobs)


@dataclass(slots=True)
class FoldedText:
    """One choice of a text completion, whole. logprobs: {"tokens", "token_logprobs", ...} by member, verbatim. extra:
    verbatim JSON by member."""

    text: str = ""
    finish: chat_pb2.Finish | None = None
    logprobs: dict[str, str] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)
    pieces: list[str] = field(default_factory=list, repr=False)


class TextFold:
    """What `AnswerFold` is, for a text completion."""

    def __init__(self) -> None:
        self.started: chat_pb2.Started | None = None
        self.choices: dict[int, FoldedText] = {}
        self.usage: chat_pb2.Usage | None = None
        self.extra: dict[str, str] = {}

    def feed(self, chunks: Iterable[completion_pb2.CompletionChunk]) -> None:
        """Takes the next chunks."""
        for chunk in chunks:
            event = chunk.WhichOneof("event")
            if chunk.answer_extra_json:
                merge(self.extra, chunk.answer_extra_json)
            if event == "started":
                self.started = chunk.started
            elif event == "usage":
                self.usage = chunk.usage
            else:
                self._take(chunk, event)

    def close(self) -> None:
        """The stream has ended well: the texts are made whole."""
        for choice in self.choices.values():
            choice.text += "".join(choice.pieces)
            choice.pieces.clear()

    @property
    def whole(self) -> bool:
        """Whether it began and every choice has its finish: what a proper end has shown."""
        choices = self.choices.values()
        return self.started is not None and bool(choices) and all(choice.finish is not None for choice in choices)

    def _take(self, chunk: completion_pb2.CompletionChunk, event: str | None) -> None:
        choice = self.choices.get(chunk.choice)
        if choice is None:
            choice = self.choices[chunk.choice] = FoldedText()
        if event == "finish":
            choice.finish = chunk.finish
        elif event == "text":
            choice.pieces.append(chunk.text)
        if chunk.logprobs_json:
            _fold_logprobs(choice.logprobs, chunk.logprobs_json)
        if chunk.choice_extra_json:
            merge(choice.extra, chunk.choice_extra_json)


def _fold_logprobs(into: dict[str, str], logprobs_json: bytes) -> None:
    """Arrays go on, one piece after the other; of all else the last one counts."""
    try:
        members = split_object(logprobs_json.decode("utf-8"))
    except (ValueError, RecursionError):
        return
    for name, value in members.items():
        before = into.get(name, "")
        arrays = before[:1] == value[:1] == "["
        into[name] = join_array(split_array(before) + split_array(value)) if arrays else value


def _fold_extra(choice: FoldedChoice, extra_json: bytes) -> None:
    """Logprobs in a vendor's own form are gathered, to be joined once; those in OpenAI's before them become such."""
    merge(choice.extra, extra_json)
    own = choice.extra.pop("logprobs", "null")
    if own == "null":
        return
    if choice.logprobs is not None:
        choice.own_logprobs.append(_logprobs_json(choice.logprobs))
        choice.logprobs = None
    choice.own_logprobs.append(own)


def _join_logprobs(pieces: list[str]) -> str:
    """Arrays go on, one piece after the other; of all else the last that says something counts."""
    if len(pieces) == 1:
        return pieces[0]
    found: dict[str, list[str]] = {}
    for piece in pieces:
        if piece[:1] != "{":
            return pieces[-1]
        for name, value in split_object(piece).items():
            before = found.get(name)
            if before is not None and before[0][:1] == value[:1] == "[":
                before.append(value)
            elif before is None or value != "null":
                found[name] = [value]
    return join_object({name: _join_arrays(values) if values[1:] else values[0] for name, values in found.items()})


def _join_arrays(arrays: list[str]) -> str:
    return join_array([items for each in arrays if (items := each[1:-1].strip())])


def _logprobs_json(found: chat_pb2.Logprobs) -> str:
    """As OpenAI has them, without what was not said."""
    parts = (("content", found.content, found.has_content), ("refusal", found.refusal, found.has_refusal))
    return json.dumps(
        {
            name: [{**_logprob(each), "top_logprobs": [_logprob(other) for other in each.top]} for each in tokens]
            for name, tokens, said in parts
            if tokens or said
        }
    )


def _logprob(token: chat_pb2.TokenLogprob) -> dict[str, object]:
    octets = list(token.token_bytes) if token.HasField("token_bytes") else None
    return {"token": token.token, "logprob": token.logprob, "bytes": octets}


def _open_block(choice: FoldedChoice) -> FoldedReasoning:
    if not choice.reasoning or choice.reasoning[-1].ended:
        position = len(choice.calls) + (1 if choice.pieces else 0)
        choice.reasoning.append(FoldedReasoning(position=position))
    return choice.reasoning[-1]


def _fold_call(choice: FoldedChoice, delta: chat_pb2.ToolCallDelta) -> None:
    call = choice.calls.get(delta.index)
    if call is None:
        call = choice.calls[delta.index] = FoldedCall(id=delta.id, name=delta.name, kind=delta.kind)
    call.arguments += delta.arguments
    if delta.signature:
        call.signature, call.sealed_by = delta.signature, delta.sealed_by
    if delta.extra_json:
        merge(call.extra, delta.extra_json)
    if delta.function_extra_json:
        merge(call.function_extra, delta.function_extra_json)


def _fold_audio(choice: FoldedChoice, delta: chat_pb2.AudioDelta) -> None:
    if choice.audio is None:
        choice.audio = chat_pb2.AudioDelta()
    audio = choice.audio
    audio.id = delta.id or audio.id
    audio.data += delta.data
    audio.transcript += delta.transcript
    audio.expires_at = delta.expires_at or audio.expires_at


def merge(into: dict[str, str], extra_json: bytes) -> None:
    """Folds one `extra_json` into the members so far. One that is not a JSON object is passed over: nothing of ours
    writes such, and an answer is worth more than a vendor's note on it."""
    try:
        members = split_object(extra_json.decode("utf-8"))
    except (ValueError, RecursionError):
        return
    for name, value in members.items():
        if name == "annotations" and value == "null":
            continue  # some vendors' word for none, and nothing to take away what came before
        before = into.get(name)
        into[name] = value if before is None or value[:1] != "[" else _merge_arrays(name, before, value)


def _merge_arrays(name: str, before: str, after: str) -> str:
    if before[:1] != "[":
        return after
    old, new = split_array(before), split_array(after)
    if name == "annotations":
        return join_array(old + new)
    if not old or not new:
        return after if new else before
    by_index: dict[str, dict[str, str]] = {}
    for item in (*old, *new):
        if item[:1] != "{":
            return after
        members = split_object(item)
        index = members.get("index")
        if index is None:
            return after
        known = by_index.setdefault(index, {})
        _merge_item(known, members)
    return join_array([join_object(each) for each in by_index.values()])


def _merge_item(known: dict[str, str], members: Mapping[str, str]) -> None:
    for name, value in members.items():
        before = known.get(name)
        if name in _IN_PIECES and before is not None and before[:1] == '"' and value[:1] == '"':
            known[name] = json.dumps(value_of(before) + value_of(value))  # ASCII: halves of a pair may come apart
        elif value != "null" or before is None:
            known[name] = value
