"""Legacy text completions, there and back. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from trestle.openjson import NOTHING
from trestle.tokens import tokens_in
from trestle.v1 import chat_pb2, completion_pb2
from worker.families.openai import wire
from worker.families.openai.answer import AnswerDecoder
from worker.families.openai.encode import Object, extend, put_sampling, put_stream, text_or_tokens
from worker.family import CompletionChunks

_NULL: Final = b"null"


def encode_completion(request: completion_pb2.CompleteRequest, stream_usage: bool) -> bytes:
    """The request's body; stream_usage: whether a stream is asked for its usage. Raises `CallError` naming a field that
    cannot be written."""
    body: Object = {"model": request.model}
    prompts = [text_or_tokens(prompt, "prompt", f"prompt[{i}]") for i, prompt in enumerate(request.prompts)]
    if prompts:
        body["prompt"] = prompts[0] if request.single else prompts
    if request.HasField("sampling"):
        put_sampling(request.sampling, body, "")
    for name in ("suffix", "echo", "best_of", "logprobs"):
        if request.HasField(name):
            body[name] = getattr(request, name)
    if request.user:
        body["user"] = request.user
    if request.stream:
        put_stream(request.stream_options_json, body, stream_usage)
    extend(body, request.extra_json, "extra_json")
    return msgspec.json.encode(body)


class OpenAITextDecoder(AnswerDecoder[wire.TextChoice]):
    """Implements `worker.family.CompletionDecoder`. request: what was asked; upstream: its name, for errors."""

    def __init__(self, request: completion_pb2.CompleteRequest, upstream: str) -> None:
        super().__init__(
            wire.TEXT,
            model=request.model,
            wanted=max(1, len(request.prompts)) * max(1, request.sampling.n),
            upstream=upstream,
            id_prefix="cmpl-",
            key=b'"text":',
        )
        self._request = request

    def _say(self, choice: wire.TextChoice, answer_extra: bytes, out: CompletionChunks) -> None:
        index = self._note(choice.index, choice.finish_reason)
        text = choice.text or ""
        logprobs = b"" if choice.logprobs is NOTHING or bytes(choice.logprobs) == _NULL else bytes(choice.logprobs)
        extra = b"" if choice.extra is NOTHING else bytes(choice.extra)
        if text or logprobs or extra or answer_extra:
            self._output.add(text)
            out.add(
                choice=index,
                text=text,
                logprobs_json=logprobs,
                choice_extra_json=extra,
                answer_extra_json=answer_extra,
            )

    def _text_of(self, choice: wire.TextChoice) -> str | None:
        silent = choice.logprobs is NOTHING or bytes(choice.logprobs) == _NULL
        return choice.text if silent and choice.extra is NOTHING else None

    def _estimate(self) -> chat_pb2.Usage:
        chars = sum(len(prompt.text) + 4 * len(prompt.tokens.ids) for prompt in self._request.prompts)
        return chat_pb2.Usage(
            input_tokens=tokens_in(chars), output_tokens=tokens_in(self._output.chars), estimated=True
        )
