"""Answers of the Messages API to chunks of the contract. Pure.

One decoder serves both forms: a message in one piece is taken block by block as the events of a stream would bring it.
The finish is held back until message_stop, the upstream's own terminal, so that a cut can never look like an end.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from trestle.errors import CallError, Reason
from trestle.openjson import NOTHING, assert_utf8, join, members, mended
from trestle.tokens import TokenEstimate
from trestle.v1 import chat_pb2
from worker.families.anthropic import wire
from worker.families.anthropic.blocks import KINDS, Answer, BlockDecoder, OtherBlock
from worker.families.anthropic.errors import error_from, says_error
from worker.families.anthropic.plan import Plan
from worker.families.anthropic.usage import UsageCount, is_count
from worker.family import Chunks
from worker.sse import Event

FINISH: Final[Mapping[str, chat_pb2.FinishReason.ValueType]] = {
    "end_turn": chat_pb2.FINISH_REASON_STOP,
    "stop_sequence": chat_pb2.FINISH_REASON_STOP,
    "pause_turn": chat_pb2.FINISH_REASON_STOP,
    "max_tokens": chat_pb2.FINISH_REASON_LENGTH,
    "model_context_window_exceeded": chat_pb2.FINISH_REASON_LENGTH,
    "tool_use": chat_pb2.FINISH_REASON_TOOL_CALLS,
    "refusal": chat_pb2.FINISH_REASON_CONTENT_FILTER,
}
# Tiers in OpenAI's words; any other stays with the usage.
_TIERS: Final = {"standard": "default", "priority": "priority"}
_PIECES: Final = frozenset(
    {"text_delta", "input_json_delta", "thinking_delta", "signature_delta", "citations_delta", "compaction_delta"}
)
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class AnthropicChatDecoder:
    """Implements `worker.family.ChatDecoder`. request: what was asked; plan: how; upstream: its name, for errors."""

    def __init__(self, request: chat_pb2.ChatRequest, plan: Plan, upstream: str) -> None:
        self.done = False
        self._request = request
        self._upstream = upstream
        self._count = UsageCount()
        self._usage: chat_pb2.Usage | None = None
        self._answer = Answer(plan)
        self._output: TokenEstimate = self._answer.output
        self._blocks: dict[int, BlockDecoder] = {}
        self._open: dict[int, BlockDecoder] = {}  # those of them that have not ended
        self._started: wire.Message | None = None
        self._given: list[Raw] = []  # blocks of the message as it began, until it is known that they do not come again
        self._counted = False  # the output too has been told
        self._stop: wire.MessageChange | wire.Message = wire.MessageChange()

    @property
    def usage(self) -> chat_pb2.Usage | None:
        """What is known of the usage. Until its last words the upstream has told its input only; the output is then
        estimated from what has come, and marked so."""
        if self._counted or self._started is None:
            return self._usage
        return self._output.at_least(self._usage, self._request)

    @usage.setter
    def usage(self, value: chat_pb2.Usage | None) -> None:
        self._usage = value

    def feed(self, event: Event, out: Chunks) -> None:
        """One event; raises `CallError` as `ChatDecoder` says."""
        name, data = event
        if name == "content_block_delta":
            self._piece(data, out)
            return
        if name == "ping":
            return
        try:
            assert_utf8(data)
            found = wire.EVENT.decode(data)
        except _UNREADABLE:
            if (whole := mended(data)) is not None:
                self.feed((name, whole), out)
                return
            if data.strip() in (b"", b"[DONE]"):  # compatible endpoints' habits, which end nothing here
                return
            raise self._unreadable(name, data) from None
        kind = found.type
        if kind == "content_block_delta":  # from an endpoint that does not name its events
            self._piece(data, out)
        elif kind == "content_block_start":
            self._begin(found.index, found.content_block, out)
        elif kind == "content_block_stop":
            self._end_block(found.index, out)
        elif kind == "message_start":
            message = found.message or wire.Message()
            self._start(message, out)
            self._given = message.content or self._given
        elif kind == "message_delta":
            self._change(found, out)
        elif kind == "message_stop":
            self._finish(out)
        elif kind == "error":
            raise self._failed(data)
        # Other events are new ones, which the API's terms say to pass over.

    def feed_run(self, data: bytes, _out: Chunks) -> bytes:
        """As `worker.family.Decoder` says: none."""
        return data

    def feed_whole(self, body: bytes, out: Chunks) -> None:
        """The message in one piece; its end is its JSON's."""
        try:
            assert_utf8(body)
            message = wire.MESSAGE.decode(body)
        except _UNREADABLE:
            if (whole := mended(body)) is not None:
                self.feed_whole(whole, out)
                return
            raise self._protocol("The upstream sent an answer that cannot be read.") from None
        if message.type == "error" or (message.content is None and _says_error(message.extra)):
            raise self._failed(body)
        if message.content is None:
            raise self._protocol("The upstream sent an answer without content.")
        self._start(message, out)
        for index, block in enumerate(message.content):
            self._begin(index, block, out)
            self._end_block(index, out)
        self._counted = message.usage is not None and is_count(message.usage.output_tokens)
        self._finish(out)

    def close(self, clean: bool, out: Chunks) -> None:
        """The body's end. Only message_stop ends an answer, however cleanly its body ends."""
        if not self.done:
            raise CallError(
                Reason.UPSTREAM_TRUNCATED,
                "The upstream ended its answer before it was complete.",
                upstream=self._upstream,
                usage=self.usage,
            )

    def failure_in(self, body: bytes) -> CallError | None:
        """As `worker.family.Decoder` says."""
        return self._failed(body) if says_error(body) else None

    def _protocol(self, what: str) -> CallError:
        return CallError(Reason.UPSTREAM_PROTOCOL, what, upstream=self._upstream, usage=self.usage)

    def _failed(self, data: bytes) -> CallError:
        error = error_from(data, None, self._upstream)
        error.usage = self.usage
        return error

    def _unreadable(self, name: str, data: bytes) -> CallError:
        """An event that is not what its type says: an error in a form of its own, or a broken protocol."""
        if name == "error" or b'"error"' in data[:64]:
            return self._failed(data)
        return self._protocol("The upstream sent an event that cannot be read.")

    def _start(self, message: wire.Message, out: Chunks) -> None:
        begun = self._started
        if begun is not None:
            if message.id and message.id == begun.id and not self._blocks:
                return  # a habit of compatible endpoints, which means nothing
            raise self._protocol("The upstream began its answer twice.")
        self._started = message
        if message.stop_reason is not None:
            self._stop = message
        started = chat_pb2.Started(
            id=message.id or f"msg_{secrets.token_hex(12)}",
            model=message.model or self._request.model,
            created=int(time.time()),
        )
        usage = None if message.usage is None else self._count.feed(message.usage)
        if self._count.tier in _TIERS:
            started.service_tier = _TIERS[self._count.tier]
        out.add(started=started)
        if message.extra is not NOTHING:
            self._answer.tell_extra(message.extra)
        self._tell_usage(usage, out)

    def _tell_usage(self, usage: chat_pb2.Usage | None, out: Chunks) -> None:
        if usage is not None and usage != self._usage:
            self._usage = usage
            out.add(usage=usage)

    def _begin(self, index: int, raw: Raw, out: Chunks) -> None:
        if self._given:
            self._take_given(out, fresh=index >= len(self._given))
        if self._started is None or index in self._blocks:
            raise self._protocol("The upstream sent a content block out of order.")
        try:
            block = wire.BLOCK.decode(raw)
        except _UNREADABLE:
            raise self._protocol("The upstream sent a content block that cannot be read.") from None
        decoder = KINDS.get(block.type, OtherBlock)(self._answer, index, block, bytes(raw))
        self._blocks[index] = self._open[index] = decoder
        decoder.begin(out)

    def _take_given(self, out: Chunks, *, fresh: bool = True) -> None:
        """Blocks that stood in the message as it began, whole: so comes what follows a call that a server's tool had
        made. fresh: they do not come as events too."""
        given, self._given = self._given, []
        for index, block in enumerate(given if fresh else ()):
            self._begin(index, block, out)
            self._end_block(index, out)

    def _piece(self, data: bytes, out: Chunks) -> None:
        try:
            assert_utf8(data)
            event = wire.PIECE_EVENT.decode(data)
        except _UNREADABLE:
            if (whole := mended(data)) is not None:
                self._piece(whole, out)
            else:
                self._new_piece(data)
            return
        block = self._block(event.index)
        piece = event.delta
        if not block.piece(piece, out):
            block.other_piece(wire.RAW_PIECE_EVENT.decode(data).delta)

    def _new_piece(self, data: bytes) -> None:
        """A piece that is none of those we know: of a newer type, which may use their members in its own way, or a
        broken protocol."""
        try:
            assert_utf8(data)
            event = wire.RAW_PIECE_EVENT.decode(data)
            known = wire.PIECE_TYPE.decode(event.delta).type in _PIECES
        except _UNREADABLE:
            known = True
        if known:
            raise self._protocol("The upstream sent an event that cannot be read.")
        self._block(event.index).other_piece(event.delta)

    def _block(self, index: int) -> BlockDecoder:
        block = self._blocks.get(index)
        if block is None:
            raise self._protocol("The upstream sent a piece of a content block that it had not begun.")
        return block

    def _end_block(self, index: int, out: Chunks) -> None:
        if index not in self._blocks:
            raise self._protocol("The upstream ended a content block that it had not begun.")
        block = self._open.pop(index, None)
        if block is not None:
            block.end(out)

    def _change(self, found: wire.Event, out: Chunks) -> None:
        """A message_delta: how it stopped, and the usage so far."""
        if self._started is None:
            raise self._protocol("The upstream sent the end of an answer before its beginning.")
        if found.delta is not None:
            if found.delta.stop_reason is not None:
                self._stop = found.delta
            if found.delta.extra is not NOTHING:
                self._answer.tell_extra(found.delta.extra)
        if found.extra is not NOTHING:
            self._answer.tell_extra(found.extra)
        if found.usage is not None:
            self._counted |= is_count(found.usage.output_tokens)
            self._tell_usage(self._count.feed(found.usage), out)

    def _finish(self, out: Chunks) -> None:
        """The upstream's terminal: the finish, then an estimate where it told no usage."""
        if self._started is None:
            raise self._protocol("The upstream sent the end of an answer before its beginning.")
        self._take_given(out)
        answer, word = self._answer, self._stop.stop_reason or ""
        for index in list(self._open):
            self._end_block(index, out)
        answer.release(out)
        answer.tell_places(out)
        details = answer.take_stop_details()
        refusal = details.pop("refusal", None)
        if refusal:
            out.add(refusal=refusal)
        finish = chat_pb2.Finish(reason=self._reason(word), upstream_reason=word)
        chunk = out.add(finish=finish)
        choice_extra: dict[str, Any] = details
        if self._stop.stop_sequence is not None:
            choice_extra["stop_sequence"] = Raw(msgspec.json.encode(self._stop.stop_sequence))
        if choice_extra:
            chunk.choice_extra_json = join(choice_extra)
        if answer.extra:
            chunk.answer_extra_json = join(answer.extra)
        if not self._counted:
            self._tell_usage(self._output.at_least(self._usage, self._request), out)
        self.done = self._counted = True

    def _reason(self, word: str) -> chat_pb2.FinishReason.ValueType:
        reason = FINISH.get(word, chat_pb2.FINISH_REASON_OTHER)
        if reason == chat_pb2.FINISH_REASON_TOOL_CALLS:
            if not self._answer.calls:
                return chat_pb2.FINISH_REASON_STOP  # its only call was the answer in JSON
            if self._answer.plan.legacy:
                return chat_pb2.FINISH_REASON_FUNCTION_CALL
        return reason


def _says_error(extra: Raw) -> bool:
    """Whether members beside a message's own are an error, of which some endpoints do not say that it is one."""
    found = members(extra) if extra is not NOTHING else {}
    return any(bytes(found.get(name, NOTHING)) not in (b"", b"null") for name in ("error", "msg", "message"))
