"""`/v1/completions`, the legacy text completions: request, stream and whole answer. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw

from gateway.openai import render
from gateway.openai.errors import error_body
from gateway.openai.fields import (
    Choices,
    Int64,
    Penalty,
    Probability,
    Stop,
    StreamOptions,
    Temperature,
    decode_body,
    named_model,
    put_stop,
    stream_options,
)
from gateway.openai.inputs import Inputs, split
from gateway.openai.stream import DONE
from trestle import fold
from trestle.errors import CallError
from trestle.openjson import NOTHING, Open, OpenDecoder, join
from trestle.v1 import chat_pb2, completion_pb2

Object = dict[str, Any]
_encode = msgspec.json.encode
_UInt = Annotated[int, Meta(ge=0, le=2**31 - 1)]
# This endpoint's schema knows no others.
_FINISH: Final = frozenset({"stop", "length", "content_filter"})


class Body(Open):
    """CreateCompletionRequest."""

    model: str
    prompt: Inputs | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    best_of: _UInt | None = None
    echo: bool | None = None
    suffix: str | None = None
    logprobs: _UInt | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    max_tokens: Int64 | None = None
    stop: Stop | None = None
    seed: Int64 | None = None
    n: Choices | None = None
    logit_bias: dict[str, Raw] | None = None
    user: str | None = None


class TextAsk(msgspec.Struct, frozen=True, gc=False):
    """A decoded body; its members as those of `gateway.openai.request.ChatAsk`."""

    model: str
    request: completion_pb2.CompleteRequest
    stream: bool
    include_usage: bool


_BODY: Final = OpenDecoder(Body)


def decode_text(body: bytes) -> TextAsk:
    """Raises `CallError` (INVALID_REQUEST) whose `param` is the path of the field at fault."""
    asked: Body = decode_body(_BODY, body)
    stream = asked.stream is True
    include_usage, options = stream_options(stream, asked.stream_options)
    request = completion_pb2.CompleteRequest(
        suffix=asked.suffix,
        echo=asked.echo,
        best_of=asked.best_of,
        logprobs=asked.logprobs,
        stream=stream,
        stream_options_json=options,
        user=asked.user or "",
        extra_json=b"" if asked.extra is NOTHING else bytes(asked.extra),
        sampling=chat_pb2.Sampling(
            temperature=asked.temperature,
            top_p=asked.top_p,
            frequency_penalty=asked.frequency_penalty,
            presence_penalty=asked.presence_penalty,
            max_tokens=asked.max_tokens,
            seed=asked.seed,
            n=asked.n,
            logit_bias_json=join(asked.logit_bias) if asked.logit_bias else b"",
        ),
    )
    put_stop(asked.stop, request.sampling)
    if asked.prompt is not None:
        texts, request.single = split(asked.prompt, "prompt")
        for text in texts:
            if isinstance(text, str):
                request.prompts.add(text=text)
            else:
                request.prompts.add().tokens.ids.extend(text)
    return TextAsk(named_model(asked.model), request, stream, include_usage)


def _finish_word(finish: chat_pb2.Finish) -> str:
    word = render.finish_word(finish)
    return word if word in _FINISH else "stop"


def _head(said: chat_pb2.Started) -> Object:
    head: Object = {"id": said.id, "object": "text_completion", "created": said.created, "model": said.model}
    if said.HasField("system_fingerprint"):
        head["system_fingerprint"] = said.system_fingerprint
    return head


class TextStreamEncoder:
    """One streamed answer's events; used as `gateway.openai.stream.ChatStreamEncoder` is."""

    def __init__(self, include_usage: bool) -> None:
        self._include_usage = include_usage
        self._head: Object = {}
        self._open: set[int] = set()
        self.chars = 0
        self.finish = ""
        self.model = ""
        self.finished: set[int] = set()
        self.usage: chat_pb2.Usage | None = None

    def feed(self, chunks: Iterable[completion_pb2.CompletionChunk], _size: int = 0) -> bytes:
        """The events of these chunks, one each; `b""` when they say nothing to the client."""
        out: list[bytes] = []
        for chunk in chunks:
            event = chunk.WhichOneof("event")
            if event == "started":
                self._head = _head(chunk.started)
                self.model = chunk.started.model
            elif event == "usage":
                self.usage = chunk.usage
            else:
                out.append(self._event(chunk, event))
        return b"".join(out)

    @property
    def whole(self) -> bool:
        """Whether it began and every choice has its finish."""
        return bool(self._head) and bool(self.finished) and self._open <= self.finished

    def close(self) -> bytes:
        """The proper end: the usage event when it was asked for, and [DONE]."""
        if not self._include_usage:
            return DONE
        counts = render.usage(self.usage) if self.usage is not None else None
        return b"data: %b\n\n%b" % (_encode({**self._head, "choices": [], "usage": counts}), DONE)

    def fail(self, error: CallError) -> bytes:
        """The end of a stream that broke: an error event and no [DONE] (WIRE 4)."""
        return b"data: %b\n\n" % error_body(error)

    def _event(self, chunk: completion_pb2.CompletionChunk, event: str | None) -> bytes:
        self._open.add(chunk.choice)
        finish = None
        if event == "finish":
            finish = _finish_word(chunk.finish)
            self.finish = self.finish or finish
            self.finished.add(chunk.choice)
        text = chunk.text
        self.chars += len(text)
        choice: Object = {
            "text": text,
            "index": chunk.choice,
            "logprobs": Raw(chunk.logprobs_json) if chunk.logprobs_json else None,
            "finish_reason": finish,
        }
        answer: Object = {**self._head, "choices": [render.extend(choice, chunk.choice_extra_json)]}
        if self._include_usage:
            answer["usage"] = None
        return b"data: %b\n\n" % _encode(render.extend(answer, chunk.answer_extra_json))


class TextFold(fold.TextFold):
    """An answer on its way to one piece: fed with chunks, then encoded."""

    @property
    def chars(self) -> int:
        """Of what was generated."""
        return sum(len(choice.text) + sum(map(len, choice.pieces)) for choice in self.choices.values())

    @property
    def model(self) -> str:
        """What the upstream calls the one that answers; empty until it has begun."""
        return self.started.model if self.started is not None else ""

    @property
    def finish(self) -> str:
        """The first choice's finish_reason; empty where it has none."""
        first = self.choices.get(0)
        return _finish_word(first.finish) if first is not None and first.finish is not None else ""

    def encode(self) -> bytes:
        """The body of a 200; the answer is whole."""
        self.close()
        assert self.started is not None
        choices = [_choice(index, choice) for index, choice in sorted(self.choices.items())]
        out: Object = {**_head(self.started), "choices": choices}
        if self.usage is not None:
            out["usage"] = render.usage(self.usage)
        return _encode(render.extend_folded(out, self.extra))


def _choice(index: int, choice: fold.FoldedText) -> Object:
    said: Object = {
        "text": choice.text,
        "index": index,
        "logprobs": dict(render.raw_members(choice.logprobs)) or None,
        "finish_reason": _finish_word(choice.finish) if choice.finish is not None else "stop",
    }
    return render.extend_folded(said, choice.extra)
