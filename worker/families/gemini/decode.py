"""Answers of generateContent and streamGenerateContent to chunks of the contract. Pure.

Each event of a stream is an answer of its own that holds the next piece of each candidate; an answer in one piece is
one such, or a list of them. There is no terminal event: finishes are held back until the body has come to its own end,
so that a cut can never look like one (WIRE 12a).
"""

from __future__ import annotations

import secrets
import time
from typing import Final

import msgspec
from msgspec import Raw

from trestle.errors import CallError, Reason
from trestle.openjson import NOTHING, assert_utf8, join, members, mended
from trestle.tokens import TokenEstimate
from trestle.v1 import chat_pb2
from worker.families.gemini import wire
from worker.families.gemini.choice import UNSPECIFIED, Choice
from worker.families.gemini.errors import error_from, says_error
from worker.families.gemini.plan import Plan
from worker.families.gemini.usage import decode_usage
from worker.family import Chunks
from worker.sse import Event

# Tiers in OpenAI's words; any other stays with the usage only.
_TIERS: Final = {b'"standard"': "default", b'"flex"': "flex", b'"priority"': "priority"}
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class GeminiChatDecoder:
    """Implements `worker.family.ChatDecoder`. request: what was asked; plan: how; upstream: its name, for errors."""

    def __init__(self, request: chat_pb2.ChatRequest, plan: Plan, upstream: str) -> None:
        self.done = False
        self._request = request
        self._plan = plan
        self._upstream = upstream
        self._output = TokenEstimate()
        self._usage: chat_pb2.Usage | None = None
        self._choices: dict[int, Choice] = {}
        self._extra: dict[str, Raw] = {}
        self._started = False

    @property
    def usage(self) -> chat_pb2.Usage | None:
        """What is known of the usage. Some models tell their output at the end only; until then it is estimated from
        what has come, and marked so."""
        return self._usage if self.done or not self._started else self._output.at_least(self._usage, self._request)

    @usage.setter
    def usage(self, value: chat_pb2.Usage | None) -> None:
        self._usage = value

    def feed(self, event: Event, out: Chunks) -> None:
        """One event; raises `CallError` as `ChatDecoder` says."""
        data = event[1]
        if data[:1] == b"{":
            self._take(data, out)
        elif data.strip() not in (b"", b"[DONE]"):  # proxies' habits, which end nothing here
            self._take_any(data, out)

    def feed_run(self, data: bytes, _out: Chunks) -> bytes:
        """As `worker.family.Decoder` says: none."""
        return data

    def feed_whole(self, body: bytes, out: Chunks) -> None:
        """The answer in one piece; its end is its JSON's."""
        self._take_any(body, out)
        if not self._choices:
            raise self._protocol("The upstream sent an answer without candidates.")
        self._finish(out)

    def close(self, clean: bool, out: Chunks) -> None:
        """The body's end: a proper one if it is clean and every candidate had its finish."""
        if self.done:
            return
        if not clean or not self._choices or not all(choice.word for choice in self._choices.values()):
            raise CallError(
                Reason.UPSTREAM_TRUNCATED,
                "The upstream ended its answer before it was complete.",
                upstream=self._upstream,
                usage=self.usage,
            )
        self._finish(out)

    def failure_in(self, body: bytes) -> CallError | None:
        """As `worker.family.Decoder` says: of `{"error": ...}`, or a list of such."""
        return self._failed(body) if says_error(body) else None

    def _take_any(self, data: bytes, out: Chunks) -> None:
        """An answer or a list of them, as errors come too."""
        if data.lstrip()[:1] != b"[":
            self._take(data, out)
            return
        try:
            found = wire.EVENTS.decode(data)
        except _UNREADABLE:
            if (whole := mended(data)) is not None:
                self._take_any(whole, out)
                return
            raise self._protocol("The upstream sent an answer that cannot be read.") from None
        for each in found:
            self._take(bytes(each), out)

    def _take(self, data: bytes, out: Chunks) -> None:
        try:
            assert_utf8(data)
            found = wire.RESPONSE.decode(data)
        except _UNREADABLE:
            if (whole := mended(data)) is not None:
                self._take(whole, out)
                return
            raise self._protocol("The upstream sent an answer that cannot be read.") from None
        if found.error is not NOTHING and bytes(found.error) != b"null":
            raise self._failed(data)
        if not self._started:
            self._start(found, out)
        if found.extra is not NOTHING:
            self._extra |= members(found.extra)
        if found.usage_metadata is not None:
            usage = decode_usage(found.usage_metadata)
            if usage is not None and usage != self._usage:
                self._usage = usage
                out.add(usage=usage)
        for candidate in found.candidates or ():
            self._choice(candidate.index or 0).feed(candidate, out)
        if found.prompt_feedback is not NOTHING:
            self._feedback(found.prompt_feedback, out)

    def _start(self, found: wire.Response, out: Chunks) -> None:
        self._started = True
        started = chat_pb2.Started(
            id=found.response_id or f"gemini-{secrets.token_hex(12)}",
            model=found.model_version or self._request.model,
            created=int(time.time()),
        )
        tier = _TIERS.get(bytes(found.usage_metadata.service_tier)) if found.usage_metadata is not None else None
        if tier is not None:
            started.service_tier = tier
        out.add(started=started)

    def _choice(self, index: int) -> Choice:
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = Choice(index, self._plan, self._output)
        return choice

    def _feedback(self, raw: Raw, out: Chunks) -> None:
        """What was thought of the prompt. A blocked one has no candidates, or none that come to an end: the block is
        the answer."""
        if bytes(raw) == b"null":
            return
        self._extra["promptFeedback"] = raw
        try:
            found = wire.PROMPT_FEEDBACK.decode(raw)
        except _UNREADABLE:
            raise self._protocol("The upstream sent an answer that cannot be read.") from None
        if not found.block_reason or found.block_reason in UNSPECIFIED:
            return
        if not self._choices:
            self._choice(0)
            if found.block_reason_message:
                out.add(refusal=found.block_reason_message)
        for choice in self._choices.values():
            if not choice.word:
                choice.word, choice.blocked = found.block_reason, True

    def _finish(self, out: Chunks) -> None:
        choices = [self._choices[index] for index in sorted(self._choices)]
        failed = next((each for each in choices if each.reason == chat_pb2.FINISH_REASON_OTHER), None)
        if failed is not None and not any(choice.produced for choice in choices):
            said = f"{failed.word}: {failed.message}" if failed.message else failed.word or "no finish reason"
            raise CallError(
                Reason.UPSTREAM_FAILED,
                f"The upstream gave no answer ({said}).",
                type=failed.word or None,
                upstream=self._upstream,
                usage=self.usage,
            )
        for at, choice in enumerate(choices):
            choice.finish(join(self._extra) if at == 0 else b"", out)
        if self._usage is None or not self._usage.output_tokens:
            guess = self._output.at_least(self._usage, self._request)
            if guess != self._usage:
                self._usage = guess
                out.add(usage=guess)
        self.done = True

    def _failed(self, data: bytes) -> CallError:
        """The upstream's own error, in a body or event of status 200."""
        error = error_from(data, None, self._upstream)
        error.usage = self.usage
        return error

    def _protocol(self, what: str) -> CallError:
        return CallError(Reason.UPSTREAM_PROTOCOL, what, upstream=self._upstream, usage=self.usage)
