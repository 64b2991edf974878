"""Chunks to the bytes of an SSE answer. Pure: what goes on the wire and when is the handler's.

Plain text, nearly all of what there is, is written into a template made once per stream and choice, many pieces of it
in one go; everything else goes through the general encoder, and all ways give the same bytes for the same chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from gateway.openai import render
from gateway.openai.errors import error_body
from gateway.openai.plain import PADDING, plain_texts
from trestle.errors import CallError
from trestle.v1 import chat_pb2

Object = dict[str, Any]
KEEP_ALIVE: Final = b": keep-alive\n\n"
DONE: Final = b"data: [DONE]\n\n"
_encode = msgspec.json.encode
_encode_lines = msgspec.json.Encoder().encode_lines
MANY: Final = 4
"""For so many chunks in one message it is worth knowing how large that is."""


class ChatStreamEncoder:
    """One answer's events. Feed it all chunks, held ones too, in order; then `close` after a proper end, or `fail`.

    include_usage: the client asked for a usage chunk. The answer so far: `finished` choices, the last `usage`, `chars`
    of what was generated, the first choice's `finish` (empty while there is none), the `model` that answers (empty
    until it has begun).
    """

    __slots__ = (
        "_blocks",
        "_include_usage",
        "_named",
        "_open",
        "_prefix",
        "_suffix",
        "_texts",
        "_thoughts",
        "chars",
        "finish",
        "finished",
        "model",
        "unknown",
        "usage",
    )

    def __init__(self, include_usage: bool) -> None:
        self._include_usage = include_usage
        self._prefix = b""
        self._suffix = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        # By choice: what stands before a piece of its text, after it, and after it at the chunk's end.
        self._texts: dict[int, tuple[bytes, bytes, bytes]] = {}
        self._open: set[int] = set()  # choices whose first delta is out
        self._named: set[tuple[int, int]] = set()  # calls whose first fragment is out
        self._thoughts: dict[int, list[str]] = {}  # by choice: the block of thinking that is being told
        self._blocks: dict[int, int] = {}  # by choice: sealed blocks told
        self.chars = 0
        self.finish = ""
        self.model = ""
        self.finished: set[int] = set()
        self.usage: chat_pb2.Usage | None = None
        self.unknown = 0

    def feed(self, chunks: Sequence[chat_pb2.ChatChunk], size: int = 0) -> bytes:
        """The events of these chunks, one each, for one write; `b""` when they say nothing to the client. size: of the
        message that holds them and nothing else, in bytes; zero where that is not known."""
        out: list[bytes] = []
        if size:
            self._feed_many(chunks, size, out)
        else:
            self._feed_each(chunks, out)
        return b"".join(out)

    def _feed_many(self, chunks: Sequence[chat_pb2.ChatChunk], size: int, out: list[bytes]) -> None:
        """Writes the pieces of plain text that follow each other in one go."""
        found = plain_texts(chunks, size)
        if found is None:
            self._feed_each(chunks, out)
            return
        at = 0
        for other in (*found.others, len(found.texts)):
            if at < other and 0 not in self._texts:
                self._feed_each(chunks[at : at + 1], out)
                at += 1
            if at < other:
                self._run(found.texts[at:other], found.paddings[at:other], out)
            self._feed_each(chunks[other : other + 1], out)
            at = other + 1

    def _run(self, texts: list[str], paddings: list[bytes], out: list[bytes]) -> None:
        """The events of pieces of the first choice's text. paddings: of each; none at all where there are none."""
        before, after, end = self._texts[0]
        self.chars += sum(map(len, texts))
        lines = _encode_lines(texts)[:-1]  # a line for each: a string in JSON has no line's end in it
        if not paddings:
            out += (before, lines.replace(b"\n", end + before), end)
            return
        for line, padding in zip(lines.split(b"\n"), paddings, strict=True):
            out += (before, line, after, b",", padding[1:-1], self._suffix) if padding else (before, line, end)

    def _feed_each(self, chunks: Iterable[chat_pb2.ChatChunk], out: list[bytes]) -> None:
        texts = self._texts
        for chunk in chunks:
            event = chunk.WhichOneof("event")
            if event == "text":
                around = texts.get(chunk.choice)
                if around is not None and not (
                    chunk.HasField("logprobs") or chunk.delta_extra_json or chunk.choice_extra_json
                ):
                    extra = chunk.answer_extra_json
                    if not extra or PADDING.fullmatch(extra):
                        text = chunk.text
                        self.chars += len(text)
                        if extra:
                            out += (around[0], _encode(text), around[1], b",", extra[1:-1], self._suffix)
                        else:
                            out += (around[0], _encode(text), around[2])
                        continue
            elif event == "usage":
                self.usage = chunk.usage
                continue
            elif event == "started":
                self._start(chunk.started)
                continue
            self._general(chunk, event, out)

    @property
    def whole(self) -> bool:
        """Whether it began and every choice has its finish: what a proper end has shown."""
        return bool(self._prefix) and bool(self.finished) and self._open == self.finished

    def close(self) -> bytes:
        """The proper end: the usage chunk when it was asked for, and [DONE]."""
        if not self._include_usage:
            return DONE
        counts = render.usage(self.usage) if self.usage is not None else None
        return b"%b[],\"usage\":%b}\n\n%b" % (self._prefix, _encode(counts), DONE)

    def fail(self, error: CallError) -> bytes:
        """The end of a stream that broke: an error event and no [DONE] (WIRE 4)."""
        return b"data: %b\n\n" % error_body(error)

    def _start(self, started: chat_pb2.Started) -> None:
        self.model = started.model
        head: Object = {
            "id": started.id,
            "object": "chat.completion.chunk",
            "created": started.created,
            "model": self.model,
        }
        head.update(render.service_tier(started))
        head["system_fingerprint"] = started.system_fingerprint if started.HasField("system_fingerprint") else None
        self._prefix = b"data: %b,\"choices\":" % _encode(head)[:-1]

    def _general(self, chunk: chat_pb2.ChatChunk, event: str | None, out: list[bytes]) -> None:
        index = chunk.choice
        if event is None and not (
            chunk.HasField("logprobs") or chunk.delta_extra_json or chunk.choice_extra_json or chunk.answer_extra_json
        ):
            self.unknown += 1  # an arm newer than this gateway
            return
        if event == "reasoning_end" and not (chunk.reasoning_end.signature or chunk.reasoning_end.redacted):
            self._thoughts.pop(index, None)  # not sealed: its text has been said already
            return
        delta: Object = {}
        if index not in self._open:
            self._open.add(index)
            delta["role"] = "assistant"
        finish = None
        if event == "text":
            delta["content"] = chunk.text
            self.chars += len(chunk.text)
            if index not in self._texts:
                self._texts[index] = self._around(index)
        elif event == "finish":
            finish = render.finish_word(chunk.finish)
            self.finish = self.finish or finish
            self.finished.add(index)
        elif event == "reasoning":
            delta["reasoning_content"] = chunk.reasoning
            self.chars += len(chunk.reasoning)
            self._thoughts.setdefault(index, []).append(chunk.reasoning)
        elif event == "reasoning_end":
            delta["reasoning_blocks"] = [self._block(index, chunk.reasoning_end)]
        elif event == "refusal":
            delta["refusal"] = chunk.refusal
            self.chars += len(chunk.refusal)
        elif event == "tool_call":
            self._tool_call(chunk, delta)
        elif event == "audio":
            delta["audio"] = _audio(chunk.audio)
        if len(delta) == 1 and "role" in delta and finish is None:
            delta["content"] = ""  # as OpenAI's own first chunk
        render.extend(delta, chunk.delta_extra_json)
        choice: Object = {
            "index": index,
            "delta": delta,
            "logprobs": render.logprobs(chunk.logprobs) if chunk.HasField("logprobs") else None,
            "finish_reason": finish,
        }
        render.extend_choice(choice, chunk.choice_extra_json)
        out += (self._prefix, b"[", _encode(choice), b"]")
        if chunk.answer_extra_json:
            reserved: Object = dict.fromkeys(("id", "object", "created", "model", "choices", "usage", "service_tier"))
            reserved["system_fingerprint"] = None
            extra = {k: v for k, v in render.extend(reserved, chunk.answer_extra_json).items() if v is not None}
            if extra:
                out += (b",", _encode(extra)[1:-1])
        out.append(self._suffix)

    def _around(self, index: int) -> tuple[bytes, bytes, bytes]:
        end = b'},"logprobs":null,"finish_reason":null}]'
        return b'%b[{"index":%d,"delta":{"content":' % (self._prefix, index), end, end + self._suffix

    def _block(self, index: int, end: chat_pb2.ReasoningEnd) -> Object:
        number = self._blocks.get(index, 0)
        self._blocks[index] = number + 1
        position = sum(1 for choice, _ in self._named if choice == index) + (1 if index in self._texts else 0)
        text = "".join(self._thoughts.pop(index, ()))
        return render.reasoning_block(number, text, end.signature, end.redacted, end.sealed_by, position)

    def _tool_call(self, chunk: chat_pb2.ChatChunk, delta: Object) -> None:
        call = chunk.tool_call
        self.chars += len(call.name) + len(call.arguments)
        if call.kind == chat_pb2.TOOL_KIND_LEGACY_FUNCTION:
            function: Object = {"name": call.name} if call.name else {}
            function["arguments"] = call.arguments
            delta["function_call"] = render.extend(function, call.function_extra_json)
            return
        custom = call.kind == chat_pb2.TOOL_KIND_CUSTOM
        first = (chunk.choice, call.index) not in self._named
        piece: Object = {"index": call.index}
        inner: Object = {}
        if first:
            self._named.add((chunk.choice, call.index))
            piece["id"] = call.id
            piece["type"] = "custom" if custom else "function"
            inner["name"] = call.name
            if "role" in delta:
                delta["content"] = None
        inner["input" if custom else "arguments"] = call.arguments
        piece["custom" if custom else "function"] = render.extend(inner, call.function_extra_json)
        if call.signature:
            piece["seal"] = render.seal(call.signature, call.sealed_by)
        delta["tool_calls"] = [render.extend(piece, call.extra_json)]


def _audio(audio: chat_pb2.AudioDelta) -> Object:
    out: Object = {}
    for name in ("id", "data", "transcript", "expires_at"):
        value = getattr(audio, name)
        if value:
            out[name] = value
    return out
