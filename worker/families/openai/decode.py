"""OpenAI-like chat answers to chunks of the contract. Pure.

What vendors do beside the letter is met here: `reasoning` for `reasoning_content`, content as a list, tool calls
without index or id.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw

from trestle.openjson import NOTHING, join, members
from trestle.v1 import chat_pb2
from worker.families.openai import wire
from worker.families.openai.answer import AnswerDecoder
from worker.families.openai.calls import Calls, arguments_of, says_something
from worker.family import Chunks

_NULL: Final = b"null"


class OpenAIChatDecoder(AnswerDecoder[wire.Choice]):
    """Implements `worker.family.ChatDecoder`. request: what was asked; upstream: its name, for errors."""

    def __init__(self, request: chat_pb2.ChatRequest, upstream: str) -> None:
        super().__init__(
            wire.CHAT,
            model=request.model,
            wanted=request.sampling.n,
            upstream=upstream,
            id_prefix="chatcmpl-",
            key=b'"content":',
        )
        self._request = request
        self._calls: dict[int, Calls] = {}
        self._told: dict[int, set[str]] = {}  # by choice, the kinds of delta

    def _estimate(self) -> chat_pb2.Usage:
        return self._output.usage(self._request)

    def _say(self, choice: wire.Choice, answer_extra: bytes, out: Chunks) -> None:
        index = self._note(choice.index, choice.finish_reason)
        if choice.message is not None and not self._streamed:
            choice.delta = None  # Perplexity's answers in one piece have an empty one
        if choice.delta is None and choice.message is not None and self._streamed and index in self._told:
            self._forget_told(choice.message, self._told[index])
        text = None if answer_extra else self._text_of(choice)
        if text is None:
            self._general(index, choice, choice.delta or choice.message, answer_extra, out)
        elif text:
            out.add(choice=index, text=text)
            self._output.add(text)
            self._told.setdefault(index, set()).add("text")

    def _forget_told(self, message: wire.Delta, told: set[str]) -> None:
        """MiniMax ends its streams with the whole message once more: what deltas have told is not told again."""
        if "text" in told:
            message.content = None
        if "reasoning" in told:
            message.reasoning_content, message.reasoning = None, NOTHING
        if "refusal" in told:
            message.refusal = None
        if "tool_call" in told:
            message.tool_calls = message.function_call = None
        if "audio" in told:
            message.audio = None

    def _text_of(self, choice: wire.Choice) -> str | None:
        piece = choice.delta or choice.message
        content = piece.content if piece is not None else None
        if (
            choice.extra is NOTHING
            and (choice.logprobs is NOTHING or bytes(choice.logprobs) == _NULL)
            and piece is not None
            and piece.extra is NOTHING
            and type(content) is str
            and piece.reasoning_content is None
            and piece.reasoning is NOTHING
            and piece.tool_calls is None
            and piece.refusal is None
            and piece.function_call is None
            and piece.audio is None
            and piece.annotations is NOTHING
        ):
            return content
        return None

    def _general(
        self, index: int, choice: wire.Choice, piece: wire.Delta | None, answer_extra: bytes, out: Chunks
    ) -> None:
        """Everything but a plain piece of text: one chunk for each thing said, the extras on the first."""
        events = self._events(index, piece) if piece is not None else []
        if events:
            self._told.setdefault(index, set()).update(*events)
        logprobs = None
        choice_extra = b"" if choice.extra is NOTHING else bytes(choice.extra)
        if choice.logprobs is not NOTHING and bytes(choice.logprobs) != _NULL:
            logprobs = decode_logprobs(choice.logprobs)
            if logprobs is None:  # a vendor's own form: carried on as it is
                choice_extra = join({**(members(choice_extra) if choice_extra else {}), "logprobs": choice.logprobs})
        delta_extra = b"" if piece is None else _delta_extra(piece)
        if not events and (answer_extra or choice_extra or delta_extra or logprobs is not None):
            events.append({})
        for event in events:
            chunk = out.add(choice=index, **event)
            if answer_extra:
                chunk.answer_extra_json = answer_extra
            if choice_extra:
                chunk.choice_extra_json = choice_extra
            if delta_extra:
                chunk.delta_extra_json = delta_extra
            if logprobs is not None and ("text" in event or "refusal" in event or len(events) == 1):
                chunk.logprobs.CopyFrom(logprobs)
                logprobs = None
            answer_extra = choice_extra = delta_extra = b""
        if logprobs is not None:
            out.add(choice=index, logprobs=logprobs)

    def _events(self, index: int, piece: wire.Delta) -> list[dict[str, Any]]:
        """What one delta or message says, as the fields of chunks, thinking before words."""
        events: list[dict[str, Any]] = []
        reasoning = piece.reasoning_content
        if not reasoning and piece.reasoning is not NOTHING:
            reasoning = self._vendor_reasoning(piece)
        if reasoning:
            events.append({"reasoning": reasoning})
            self._output.add(reasoning)
        content = piece.content
        if isinstance(content, str):
            if content:
                events.append({"text": content})
                self._output.add(content)
        elif content is not None:
            self._content_list(content, piece, events)
        if piece.refusal:
            events.append({"refusal": piece.refusal})
            self._output.add(piece.refusal)
        if piece.audio is not None:
            events.append({"audio": _audio(piece.audio)})
        if piece.function_call is not None and says_something(piece.function_call):
            if piece.tool_calls or (index in self._calls and self._calls[index].seen):
                _set_aside(piece, "function_call", _function_object(piece.function_call))
            else:
                events.append({"tool_call": self._legacy_call(index, piece.function_call)})
        if piece.tool_calls:
            calls = self._calls.setdefault(index, Calls())
            calls.named.clear()
            pieces = piece.tool_calls if isinstance(piece.tool_calls, list) else [piece.tool_calls]
            for position, call in enumerate(pieces):
                delta = calls.delta(call, position)
                if delta is not None:
                    self._output.add(delta.arguments)
                    events.append({"tool_call": delta})
        return events

    def _close_choice(self, index: int, out: Chunks) -> None:
        if index in self._calls:
            for delta in self._calls[index].left():
                self._output.add(delta.arguments)
                out.add(choice=index, tool_call=delta)

    def _reason(self, index: int, word: str) -> chat_pb2.FinishReason.ValueType:
        """Calls are a finish of their own, which some upstreams call a stop, and some nothing. OpenAI itself calls it a
        stop where the call was forced by name."""
        reason = super()._reason(index, word)
        calls = self._calls.get(index)
        if reason != chat_pb2.FINISH_REASON_STOP or calls is None or not (calls.seen or calls.legacy):
            return reason
        request = self._request
        chosen = request.tool_choice if request.HasField("tool_choice") else request.function_call
        if word and (chosen.WhichOneof("choice") == "function" or not (request.tools or request.functions)):
            return reason
        return chat_pb2.FINISH_REASON_TOOL_CALLS if calls.seen else chat_pb2.FINISH_REASON_FUNCTION_CALL

    def _vendor_reasoning(self, piece: wire.Delta) -> str | None:
        """`reasoning`, the word of OpenRouter, Groq and Ollama; anything but text stays an extra."""
        raw = piece.reasoning
        if bytes(raw)[:1] == b'"':
            text: str = msgspec.json.decode(raw, type=str)
            return text
        if bytes(raw) != _NULL:
            _set_aside(piece, "reasoning", raw)
        return None

    def _content_list(self, content: list[Raw], piece: wire.Delta, events: list[dict[str, Any]]) -> None:
        """Content as a list of pieces: text and thinking are what they say; a list with anything else, or with members
        that say more, rides whole as an extra, so that nothing of it is lost."""
        strange = False
        for raw in content:
            try:
                part = wire.CONTENT_PIECE.decode(raw)
            except msgspec.DecodeError:
                strange = True
                continue
            thought = part.thinking if part.type == "thinking" else part.summary if part.type == "reasoning" else None
            text = part.text if part.type == "text" else None
            if thought is not None:
                text = thought if isinstance(thought, str) else "".join(p.text or "" for p in thought)
            if text:
                events.append({"text" if thought is None else "reasoning": text})
                self._output.add(text)
            elif text is None:
                strange = True
            strange = strange or not _is_plain(raw)
        if strange:
            _set_aside(piece, "content_parts", Raw(msgspec.json.encode(content)))

    def _legacy_call(self, index: int, piece: wire.FunctionPiece) -> chat_pb2.ToolCallDelta:
        calls = self._calls.setdefault(index, Calls())
        delta = chat_pb2.ToolCallDelta(arguments=arguments_of(piece), kind=chat_pb2.TOOL_KIND_LEGACY_FUNCTION)
        if not calls.legacy:
            calls.legacy = True
            delta.name = piece.name or ""
        if piece.extra is not NOTHING:
            delta.function_extra_json = bytes(piece.extra)
        return delta


def _set_aside(piece: wire.Delta, name: str, value: Raw) -> None:
    """Makes a member an extra of its delta."""
    piece.extra = Raw(join({**(members(piece.extra) if piece.extra is not NOTHING else {}), name: value}))


def _is_plain(raw: Raw) -> bool:
    """Whether a piece of content says no more than its text."""
    try:
        wire.PLAIN_PIECE.decode(raw)
    except msgspec.DecodeError:
        return False
    return True


def _delta_extra(piece: wire.Delta) -> bytes:
    extra = b"" if piece.extra is NOTHING else bytes(piece.extra)
    if piece.annotations is NOTHING:
        return extra
    annotations = b'{"annotations":' + bytes(piece.annotations)
    return annotations + (b"," + extra[1:] if extra else b"}")


def _function_object(function: wire.FunctionPiece) -> Raw:
    found = members(function.extra) if function.extra is not NOTHING else {}
    name = Raw(msgspec.json.encode(function.name))
    return Raw(join({"name": name, "arguments": function.arguments or Raw(b'""'), **found}))


def _audio(piece: wire.AudioPiece) -> chat_pb2.AudioDelta:
    return chat_pb2.AudioDelta(
        id=piece.id or "",
        data=piece.data or "",
        transcript=piece.transcript or "",
        expires_at=wire.whole(piece.expires_at) or 0,
    )


def decode_logprobs(raw: Raw) -> chat_pb2.Logprobs | None:
    """Logprobs in OpenAI's form; None for any other."""
    try:
        found = wire.LOGPROBS.decode(raw)
    except msgspec.DecodeError:
        return None
    out = chat_pb2.Logprobs(has_content=found.content is not None, has_refusal=found.refusal is not None)
    for source, target in ((found.content, out.content), (found.refusal, out.refusal)):
        for token in source or ():
            entry = target.add(token=token.token, logprob=token.logprob)
            if token.bytes is not None:
                entry.token_bytes = bytes(token.bytes)
            for other in token.top_logprobs or ():
                top = entry.top.add(token=other.token, logprob=other.logprob)
                if other.bytes is not None:
                    top.token_bytes = bytes(other.bytes)
    return out
