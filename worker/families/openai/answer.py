"""OpenAI-like answers of any kind to chunks: beginning, extras, usage, errors and the proper end. Pure.

One decoder serves both forms, stream and one piece, so they cannot diverge. Finishes are held back until the upstream's
own terminal (WIRE 12a), so that a cut can never look like an end.
"""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import Raw

from trestle.errors import CallError, Reason
from trestle.openjson import NOTHING, OpenDecoder, assert_utf8, join, members, mended
from trestle.tokens import TokenEstimate
from trestle.v1 import chat_pb2
from worker.families.openai import wire
from worker.families.openai.errors import error_from, is_error, says_error
from worker.families.openai.halves import Halves
from worker.families.openai.template import Plain, TextTemplate
from worker.families.openai.usage import decode_usage
from worker.sse import Event

C = TypeVar("C", wire.Choice, wire.TextChoice)
Out = Any  # the chunks' repeated field: of either kind, with the same names for what is added here

_STOP, _LENGTH, _TOOLS, _FILTERED = (
    chat_pb2.FINISH_REASON_STOP,
    chat_pb2.FINISH_REASON_LENGTH,
    chat_pb2.FINISH_REASON_TOOL_CALLS,
    chat_pb2.FINISH_REASON_CONTENT_FILTER,
)
FINISH: Final[Mapping[str, chat_pb2.FinishReason.ValueType]] = {
    "stop": _STOP,
    "length": _LENGTH,
    "tool_calls": _TOOLS,
    "content_filter": _FILTERED,
    "function_call": chat_pb2.FINISH_REASON_FUNCTION_CALL,
    # Vendors' own words for the same, in whatever case.
    "eos": _STOP,
    "eos_token": _STOP,
    "stop_sequence": _STOP,
    "end_turn": _STOP,
    "complete": _STOP,
    "max_tokens": _LENGTH,
    "model_length": _LENGTH,
    "model_context_window_exceeded": _LENGTH,
    "tool_use": _TOOLS,
    "tool_call": _TOOLS,
    "sensitive": _FILTERED,
    "safety": _FILTERED,
    "recitation": _FILTERED,
    "blocklist": _FILTERED,
    "prohibited_content": _FILTERED,
    "spii": _FILTERED,
    "refusal": _FILTERED,
    "content_filtered": _FILTERED,
    "guardrail_intervened": _FILTERED,
}
# Words that end an answer which is not whole: never a finish.
_BROKEN: Final = frozenset({"error", "insufficient_system_resource", "network_error", "abort"})
_NULL: Final = b"null"
# Of the chunks of text alone that are read the long way, the first that a template is made of, and the last.
_LEARN_FROM: Final = 3
_LEARN_UNTIL: Final = 6
_MAX_CHOICES: Final = 1 << 17  # of a text completion: 2,048 prompts, 64 choices each


def reason_of_word(word: str) -> chat_pb2.FinishReason.ValueType:
    """What the upstream's word for a finish means. Google's says more after a colon: `content_filter: SPII`."""
    return FINISH.get(word.partition(":")[0].lower(), chat_pb2.FINISH_REASON_OTHER)


class AnswerDecoder(ABC, Generic[C]):
    """Implements `worker.family.Decoder` but for the choices.

    body: decodes an event or an answer. model: as asked for. wanted: how many choices. upstream: its name, for errors.
    id_prefix: of an id made here where the upstream gives none. key: the member that is a choice's text, as it stands
    in JSON.
    """

    def __init__(
        self, body: OpenDecoder[wire.Answer[C]], *, model: str, wanted: int, upstream: str, id_prefix: str, key: bytes
    ) -> None:
        self.done = False
        self._usage: chat_pb2.Usage | None = None
        self._body: OpenDecoder[wire.Answer[C]] = body
        self._model = model
        self._wanted = max(1, wanted)
        self._upstream = upstream
        self._id_prefix = id_prefix
        self._started = False
        self._streamed = False
        self._finish: dict[int, str] = {}  # by choice; an empty word while it is not finished
        self._pending: dict[str, Raw] = {}  # extras of the answer that came without a choice to ride on
        self._output = TokenEstimate()
        self._key = key
        self._template: TextTemplate | None = None
        self._plain = 0  # chunks of nothing but text that no template fitted
        self._halves = Halves(self._wanted)

    @property
    def usage(self) -> chat_pb2.Usage | None:
        """What is known of the usage. Most upstreams tell it at the end only; until then it is estimated from what has
        come, and marked so."""
        return self._estimate() if self._usage is None and self._started else self._usage

    @usage.setter
    def usage(self, value: chat_pb2.Usage | None) -> None:
        self._usage = value

    @abstractmethod
    def _say(self, choice: C, answer_extra: bytes, out: Out) -> None:
        """What one choice says, as chunks; answer_extra: to go on the first of them."""

    @abstractmethod
    def _text_of(self, choice: C) -> str | None:
        """The text of a choice that says nothing else; None of any other."""

    def _close_choice(self, index: int, out: Out) -> None:
        """What was held back of a choice, now that it is over."""

    def _reason(self, index: int, word: str) -> chat_pb2.FinishReason.ValueType:
        """What a choice's last word means; empty where there was none."""
        return reason_of_word(word) if word else _STOP

    @abstractmethod
    def _estimate(self) -> chat_pb2.Usage:
        """The usage, where the upstream told none."""

    def feed(self, event: Event, out: Out) -> None:
        """One event; raises `CallError` as `worker.family.Decoder` says."""
        name, data = event
        if data[:1] != b"{":
            word = data.strip()
            if word == b"[DONE]":
                self._end(out)
                self.done = True
            if word in (b"[DONE]", b"", b"null"):
                return
        template = self._template
        if template is not None and not name and not self._pending and (plain := template.read(data)) is not None:
            text, padding = plain
            if padding:
                out.add(choice=template.choice, text=text, answer_extra_json=b'{"obfuscation":"%b"}' % padding)
            elif text:
                out.add(choice=template.choice, text=text)
            self._output.chars += len(text)
            return
        self._streamed = True
        try:
            answer = self._parse(data)
        except CallError:
            if name == "error":  # whose data may be mere words
                raise self._failed(data) from None
            raise
        if name == "error" and answer.error is NOTHING:
            raise self._failed(data)
        self._take(answer, data, out)
        if self._plain < _LEARN_UNTIL and answer.choices and self._plain_of(answer) is not None:
            self._plain += 1
            if self._plain >= _LEARN_FROM:
                self._template = TextTemplate.of(data, answer.choices[0].index or 0, self._key, self._read)

    def feed_run(self, data: bytes, out: Out) -> bytes:
        """As `worker.family.Decoder` says: the events that are like the template."""
        template = self._template
        if template is None or self._pending:
            return data
        texts, paddings, size = template.read_run(data)
        add, choice = out.add, template.choice
        if paddings:
            for text, padding in zip(texts, paddings, strict=True):
                add(choice=choice, text=text, answer_extra_json=b'{"obfuscation":"%b"}' % padding)
        elif choice:
            for text in filter(None, texts):
                add(choice=choice, text=text)
        else:  # which need not be named, and costs half as much again where it is
            for text in filter(None, texts):
                add(text=text)
        self._output.chars += sum(map(len, texts))
        return data[size:] if size else data

    def feed_whole(self, body: bytes, out: Out) -> None:
        """The answer in one piece; its end is its JSON's."""
        answer = self._parse(body)
        self._take(answer, body, out)
        if not self._finish and answer.extra is not NOTHING and says_error(answer.extra, whole=True):
            raise self._failed(body)
        self._end(out)  # Ollama may leave the word for the finish out
        self.done = True

    def close(self, clean: bool, out: Out) -> None:
        """The body's end without [DONE]: proper when every choice has finished and, where only the connection's close
        says that it is over, usage has come too."""
        if self.done:
            return
        all_finished = len(self._finish) >= self._wanted and all(self._finish.values())
        if not all_finished or not (clean or self._usage is not None):
            raise self._truncated()
        self._end(out)
        self.done = True

    def failure_in(self, body: bytes) -> CallError | None:
        """As `worker.family.Decoder` says: of an error in any vendor's form, or a list of such."""
        return self._failed(body) if is_error(body) else None

    def _truncated(self) -> CallError:
        return CallError(
            Reason.UPSTREAM_TRUNCATED,
            "The upstream ended its answer before it was complete.",
            upstream=self._upstream,
            usage=self.usage,
        )

    def _failed(self, data: bytes) -> CallError:
        """The upstream's own error, in a body or event of status 200."""
        error = error_from(mended(data) or data, None, {}, self._upstream)
        error.usage = self.usage
        return error

    def _protocol(self, what: str) -> CallError:
        return CallError(Reason.UPSTREAM_PROTOCOL, what, upstream=self._upstream, usage=self.usage)

    def _read(self, data: bytes) -> Plain | None:
        try:
            return self._plain_of(self._body.decode(data))
        except (msgspec.DecodeError, RecursionError):
            return None

    def _plain_of(self, answer: wire.Answer[C]) -> Plain | None:
        """What an answer says that holds one piece of text, and nothing that means anything beside it."""
        choices = answer.choices
        if (
            answer.extra is NOTHING
            and answer.usage is None
            and answer.error is NOTHING
            and choices is not None
            and len(choices) == 1
            and not choices[0].finish_reason
            and (text := self._text_of(choices[0])) is not None
        ):
            padding = bytes(answer.obfuscation)
            if answer.obfuscation is NOTHING:
                return text, b""
            if text and padding[1:-1].isalnum():
                return text, padding[1:-1]
        return None

    def _parse(self, data: bytes) -> wire.Answer[C]:
        whole = None
        try:
            assert_utf8(data)
            try:
                answer = self._body.decode(data)
            except msgspec.DecodeError:
                if (whole := mended(data)) is None:
                    raise
                answer = self._body.decode(whole)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise self._protocol("The upstream sent an event that cannot be read.") from None
        halves = self._halves
        if whole is not None or halves.held:
            halves.join(answer.choices or (), b"" if whole is None else data)
            if halves.held:  # which the next piece must be asked for: none is read by what stands around it
                self._template, self._plain = None, 0
        return answer

    def _take(self, answer: wire.Answer[C], data: bytes, out: Out) -> None:
        choices = answer.choices
        if (answer.error is not NOTHING and bytes(answer.error) != _NULL) or (
            not choices and answer.extra is not NOTHING and says_error(answer.extra)
        ):
            self._take_usage(answer, out)
            raise self._failed(data)
        if not self._started and (choices or answer.usage is not None):
            # Not before: Azure's first event, its filter's results, has neither a choice nor an id.
            self._start(answer, out)
        extra = b""
        if answer.extra is not NOTHING or answer.obfuscation is not NOTHING:
            extra = self._answer_extra(answer, bool(choices))
        elif self._pending and choices:
            extra = self._released()
        if choices:
            if self._wanted > 1 and len({choice.index for choice in choices}) < len(choices):
                # Numbered by their place alone. Where one was wanted, as many as come are pieces of that one.
                for position, choice in enumerate(choices):
                    choice.index = position
            for choice in choices:
                if choice.extra is not NOTHING:
                    self._take_aside(choice.extra, answer, out)
                self._say(choice, extra, out)
                extra = b""
        if answer.usage is not None:
            self._take_usage(answer, out)

    def _take_aside(self, extra: Raw, answer: wire.Answer[C], out: Out) -> None:
        """What vendors say in a choice that is of the answer: Moonshot its usage, OpenRouter what went wrong."""
        text = bytes(extra)
        if b'"usage"' not in text and b'"error"' not in text:
            return
        found = members(extra)
        usage, error = found.get("usage"), found.get("error")
        if answer.usage is None and usage is not None and bytes(usage)[:1] == b"{":
            answer.usage = self._usage_in(usage)
        if error is not None and bytes(error)[:1] == b"{":
            self._take_usage(answer, out)
            raise self._failed(b'{"error":%b}' % error)

    def _start(self, answer: wire.Answer[C], out: Out) -> None:
        self._started = True
        started = chat_pb2.Started(
            id=answer.id or f"{self._id_prefix}{secrets.token_hex(12)}",
            model=answer.model or self._model,
            created=wire.whole(answer.created) or int(time.time()),
        )
        if answer.system_fingerprint is not None:
            started.system_fingerprint = answer.system_fingerprint
        if answer.service_tier is not None:
            started.service_tier = answer.service_tier
        out.add(started=started)
        if self._usage is not None:  # came before there was anything to tell it with
            out.add(usage=self._usage)

    def _answer_extra(self, answer: wire.Answer[C], has_choice: bool) -> bytes:
        """The answer's extras for this chunk's first choice, or kept for a later one."""
        extra = b"" if answer.extra is NOTHING else bytes(answer.extra)
        if answer.obfuscation is not NOTHING:
            extra = b'{"obfuscation":%b%b' % (answer.obfuscation, b"," + extra[1:] if extra else b"}")
        if not self._pending and has_choice and b"x_groq" not in extra:
            return extra
        found = members(extra)
        groq = found.get("x_groq")
        if groq is not None and answer.usage is None:  # where Groq puts its usage
            inner = members(groq) if bytes(groq)[:1] == b"{" else {}
            if "usage" in inner:
                answer.usage = self._usage_in(inner["usage"])
        self._pending.update(found)
        return self._released() if has_choice else b""

    def _usage_in(self, raw: Raw) -> wire.Usage:
        try:
            return wire.USAGE.decode(raw)
        except (msgspec.DecodeError, RecursionError):
            raise self._protocol("The upstream sent a usage that cannot be read.") from None

    def _released(self) -> bytes:
        extra = join(self._pending)
        self._pending.clear()
        return extra

    def _note(self, index: int | None, finish_reason: str | None) -> int:
        """Takes a choice's number, which it returns, and, if it comes, its last word. Raises `CallError` for what
        neither can be."""
        index = index or 0
        if index not in self._finish:
            if not 0 <= index < _MAX_CHOICES:
                raise self._protocol("The upstream sent a choice with an impossible index.")
            self._finish[index] = ""
        if finish_reason and finish_reason != "null":  # KoboldCpp's word for none
            if finish_reason.lower() in _BROKEN:
                raise CallError(
                    Reason.UPSTREAM_FAILED,
                    f"The upstream gave up its answer ({finish_reason}).",
                    upstream=self._upstream,
                    usage=self.usage,
                )
            self._finish[index] = finish_reason
        return index

    def _take_usage(self, answer: wire.Answer[C], out: Out) -> None:
        if answer.usage is None:
            return
        usage = decode_usage(answer.usage, self._estimate)
        if usage is not None and usage != self._usage:  # some vendors repeat it on each chunk
            self._usage = usage
            if self._started:
                out.add(usage=usage)

    def _end(self, out: Out) -> None:
        """The upstream's terminal: one finish per choice, then an estimate where it named no usage."""
        if not self._finish:
            raise self._protocol("The upstream ended its answer without a choice.")
        for choice in self._halves.rest():
            self._say(choice, b"", out)
        for index in sorted(self._finish):
            self._close_choice(index, out)
            word = self._finish[index]
            finish = chat_pb2.Finish(reason=self._reason(index, word), upstream_reason=word)
            chunk = out.add(choice=index, finish=finish)
            if self._pending:
                chunk.answer_extra_json = self._released()
        if self._usage is None:
            self._usage = self._estimate()
            out.add(usage=self._usage)
