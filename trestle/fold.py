"""Chunks to one answer: what the gateway answers a non-stream request with, and what a caller of `complete` gets.

Pure, and free of everything but the contract. Extras fold as trestle/extras.py says, and each array in a choice's
`logprobs` is concatenated.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from trestle.extras import Extras
from trestle.rawjson import join_array, join_object, split_object
from trestle.v1 import chat_pb2, completion_pb2


@dataclass(slots=True)
class FoldedCall:
    """One tool call, whole."""

    id: str = ""
    name: str = ""
    kind: chat_pb2.ToolKind.ValueType = chat_pb2.TOOL_KIND_UNSPECIFIED
    arguments: str = ""
    signature: str = ""
    sealed_by: str = ""
    extra: Extras = field(default_factory=Extras)
    function_extra: Extras = field(default_factory=Extras)


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
    extra: Extras = field(default_factory=Extras)
    delta_extra: Extras = field(default_factory=Extras)
    pieces: list[str] = field(default_factory=list, repr=False)
    own_logprobs: list[str] = field(default_factory=list, repr=False)
    sounds: list[chat_pb2.AudioDelta] = field(default_factory=list, repr=False)


class AnswerFold:
    """Feeds on the chunks of one answer in order; its attributes are the answer so far.

    started: None until it came. choices: by index. usage: the last one. extra: verbatim JSON by member.
    """

    def __init__(self) -> None:
        self.started: chat_pb2.Started | None = None
        self.choices: dict[int, FoldedChoice] = {}
        self.usage: chat_pb2.Usage | None = None
        self.extra = Extras()

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
                self.extra.feed(chunk.answer_extra_json)
            if chunk.choice_extra_json:
                _fold_extra(self._choice(chunk.choice), chunk.choice_extra_json)
            if chunk.delta_extra_json:
                self._choice(chunk.choice).delta_extra.feed(chunk.delta_extra_json)

    def close(self) -> None:
        """The stream has ended well: texts, sound and extras are made whole, and logprobs in a vendor's own form."""
        self.extra.close()
        for choice in self.choices.values():
            choice.extra.close()
            choice.delta_extra.close()
            for call in choice.calls.values():
                call.extra.close()
                call.function_extra.close()
            if choice.pieces:
                choice.text = "".join(choice.pieces)
                choice.pieces.clear()
            if choice.sounds:
                choice.audio = _audio(choice.sounds)
                choice.sounds.clear()
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
            choice.sounds.append(chunk.audio)
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
    extra: Extras = field(default_factory=Extras)
    pieces: list[str] = field(default_factory=list, repr=False)
    own_logprobs: dict[str, list[str]] = field(default_factory=dict, repr=False)


class TextFold:
    """What `AnswerFold` is, for a text completion."""

    def __init__(self) -> None:
        self.started: chat_pb2.Started | None = None
        self.choices: dict[int, FoldedText] = {}
        self.usage: chat_pb2.Usage | None = None
        self.extra = Extras()

    def feed(self, chunks: Iterable[completion_pb2.CompletionChunk]) -> None:
        """Takes the next chunks."""
        for chunk in chunks:
            event = chunk.WhichOneof("event")
            if chunk.answer_extra_json:
                self.extra.feed(chunk.answer_extra_json)
            if event == "started":
                self.started = chunk.started
            elif event == "usage":
                self.usage = chunk.usage
            else:
                self._take(chunk, event)

    def close(self) -> None:
        """The stream has ended well: texts, their logprobs and extras are made whole."""
        self.extra.close()
        for choice in self.choices.values():
            choice.extra.close()
            choice.text += "".join(choice.pieces)
            choice.pieces.clear()
            choice.logprobs = _joined(choice.own_logprobs)

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
            with suppress(ValueError, RecursionError):
                _gather(choice.own_logprobs, split_object(chunk.logprobs_json.decode("utf-8")))
        if chunk.choice_extra_json:
            choice.extra.feed(chunk.choice_extra_json)


def _fold_extra(choice: FoldedChoice, extra_json: bytes) -> None:
    """Logprobs in a vendor's own form are gathered, to be joined once; those in OpenAI's before them become such."""
    choice.extra.feed(extra_json)
    own = choice.extra.pop("logprobs", "null")
    if own == "null":
        return
    if choice.logprobs is not None:
        choice.own_logprobs.append(_logprobs_json(choice.logprobs))
        choice.logprobs = None
    choice.own_logprobs.append(own)


def _join_logprobs(pieces: list[str]) -> str:
    if len(pieces) == 1:
        return pieces[0]
    found: dict[str, list[str]] = {}
    for piece in pieces:
        if piece[:1] != "{":
            return pieces[-1]
        _gather(found, split_object(piece))
    return join_object(_joined(found))


def _gather(found: dict[str, list[str]], members: Mapping[str, str]) -> None:
    """Arrays go on, one piece after the other; of all else the last that says something counts."""
    for name, value in members.items():
        before = found.get(name)
        if before is not None and before[0][:1] == value[:1] == "[":
            before.append(value)
        elif before is None or value != "null":
            found[name] = [value]


def _joined(found: Mapping[str, list[str]]) -> dict[str, str]:
    return {name: _join_arrays(values) if values[1:] else values[0] for name, values in found.items()}


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
        call.extra.feed(delta.extra_json)
    if delta.function_extra_json:
        call.function_extra.feed(delta.function_extra_json)


def _audio(pieces: list[chat_pb2.AudioDelta]) -> chat_pb2.AudioDelta:
    """All of it; of the id and the time the last that was said."""
    return chat_pb2.AudioDelta(
        id=next((each.id for each in reversed(pieces) if each.id), ""),
        data="".join(each.data for each in pieces),
        transcript="".join(each.transcript for each in pieces),
        expires_at=next((each.expires_at for each in reversed(pieces) if each.expires_at), 0),
    )
