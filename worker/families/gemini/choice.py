"""One candidate of an answer on its way to the chunks of a choice. Pure.

Texts and thoughts are told as they come; parts that chat completions have no word for are kept whole, as an extra.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from trestle.openjson import NOTHING, join, members
from trestle.tokens import TokenEstimate
from trestle.v1 import chat_pb2
from worker.families.gemini import wire
from worker.families.gemini.grounding import annotations_of
from worker.families.gemini.partial import PartialCall
from worker.families.gemini.plan import Plan
from worker.families.gemini.turns import KEPT_PARTS, MADE_ID
from worker.family import Chunks

SEALED_BY: Final = "gemini"
UNSPECIFIED: Final = frozenset({"FINISH_REASON_UNSPECIFIED", "BLOCK_REASON_UNSPECIFIED", "BLOCKED_REASON_UNSPECIFIED"})
"""Words that say there is none."""
_FILTERED: Final = frozenset(
    {
        "SAFETY",
        "RECITATION",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "MODEL_ARMOR",
        "ESCALATION",
        "PUP_LIMITED_DISABLED",
    }
)
FINISH: Final[Mapping[str, chat_pb2.FinishReason.ValueType]] = {
    "STOP": chat_pb2.FINISH_REASON_STOP,
    "MAX_TOKENS": chat_pb2.FINISH_REASON_LENGTH,
    "CONTINUATION": chat_pb2.FINISH_REASON_LENGTH,
    **dict.fromkeys(_FILTERED, chat_pb2.FINISH_REASON_CONTENT_FILTER),
}
_NOTHING: Final = (b"null", b"{}", b"[]")


def reason_of_word(word: str) -> chat_pb2.FinishReason.ValueType:
    """What the upstream's word for a finish means, before it is asked whether there were calls."""
    if word.startswith("IMAGE_"):
        return chat_pb2.FINISH_REASON_CONTENT_FILTER
    return FINISH.get(word, chat_pb2.FINISH_REASON_OTHER)


class Choice:
    """word: the upstream's for its finish, empty until it came; message: what it says of it. produced: whether there
    was anything to see. blocked: the prompt was refused, so that there is no candidate."""

    def __init__(self, index: int, plan: Plan, output: TokenEstimate) -> None:
        self.index = index
        self.word = ""
        self.message = ""
        self.produced = False
        self.blocked = False
        self._plan = plan
        self._output = output
        self._calls = 0
        self._kept = 0
        self._texts: list[str] = []
        self._thinking = False
        self._json_called = False
        self._partial: PartialCall | None = None
        self._extra: dict[str, Raw] = {}

    def feed(self, found: wire.Candidate, out: Chunks) -> None:
        """What one event holds of it."""
        logprobs = _logprobs(found.logprobs_result)
        for part in (found.content.parts if found.content is not None else None) or ():
            logprobs = self._part(part, logprobs, out)
        if logprobs is not None:
            out.add(choice=self.index, logprobs=logprobs)
        if found.finish_reason and found.finish_reason not in UNSPECIFIED:
            self.word = found.finish_reason
        if found.extra is not NOTHING:
            for name, value in members(found.extra).items():
                # Some chunks hold an empty one after the one that counts.
                if bytes(value) not in _NOTHING or (name not in self._extra and bytes(value) != b"null"):
                    self._extra[name] = value
            if "finishMessage" in self._extra:
                self.message = _string(self._extra["finishMessage"])

    @property
    def reason(self) -> chat_pb2.FinishReason.ValueType:
        """What the word means."""
        if self.blocked:
            return chat_pb2.FINISH_REASON_CONTENT_FILTER
        reason = reason_of_word(self.word)
        if reason == chat_pb2.FINISH_REASON_STOP and self._calls:
            legacy = self._plan.legacy
            return chat_pb2.FINISH_REASON_FUNCTION_CALL if legacy else chat_pb2.FINISH_REASON_TOOL_CALLS
        return reason

    def finish(self, answer_extra: bytes, out: Chunks) -> None:
        """The end: what was held back, annotations, the finish."""
        self._end_thought("", out)
        self._end_partial(out)
        if self._plan.json == "tool" and self._texts:
            text = "".join(self._texts)
            if self._json_called:
                self._keep({"text": Raw(msgspec.json.encode(text))}, out)
            else:
                self._output.add(text)
                out.add(choice=self.index, text=text)
        annotations = annotations_of(self._extra, "".join(self._texts)) if self._extra else []
        if annotations:
            out.add(choice=self.index, delta_extra_json=msgspec.json.encode({"annotations": annotations}))
        out.add(
            choice=self.index,
            finish=chat_pb2.Finish(reason=self.reason, upstream_reason=self.word),
            choice_extra_json=join(self._extra),
            answer_extra_json=answer_extra,
        )

    def _part(self, part: wire.Part, logprobs: chat_pb2.Logprobs | None, out: Chunks) -> chat_pb2.Logprobs | None:
        """One part; what is left of the logprobs, which go with the first text."""
        seal = part.thought_signature or ""
        if part.function_call is not None:
            self._end_thought("", out)
            self._piece(part.function_call, part, out)
            return logprobs
        if part.text is None:
            if part.extra is not NOTHING:
                self._end_thought("", out)
                self.produced = True
                self._keep(_whole(part), out)
            elif seal:
                self._end_thought(seal, out)
            return logprobs
        if part.thought:
            if part.text:
                self._thinking = True
                self.produced = True
                self._output.add(part.text)
                out.add(choice=self.index, reasoning=part.text)
            if seal:
                self._end_thought(seal, out)
        else:
            if part.text:
                self._end_thought("", out)
                logprobs = self._text(part.text, logprobs, out)
            if seal:
                # Of the text, not of a thought: a block without a text says so.
                self._end_thought("", out)
                self._thinking = True
                self._end_thought(seal, out)
        if part.extra is not NOTHING:
            self._keep(None, out, part.extra)
        return logprobs

    def _text(self, text: str, logprobs: chat_pb2.Logprobs | None, out: Chunks) -> chat_pb2.Logprobs | None:
        self.produced = True
        self._texts.append(text)
        if self._plan.json == "tool":
            return logprobs  # held until it is known whether the function is called that carries the answer
        self._output.add(text)
        out.add(choice=self.index, text=text, logprobs=logprobs)
        return None

    def _end_thought(self, seal: str, out: Chunks) -> None:
        if not self._thinking and not seal:
            return
        self._thinking = False
        end = chat_pb2.ReasoningEnd(signature=seal, sealed_by=SEALED_BY if seal else "")
        out.add(choice=self.index, reasoning_end=end)

    def _piece(self, found: wire.FunctionCall, part: wire.Part, out: Chunks) -> None:
        """A call, or a piece of one."""
        if found.name and self._partial is not None:
            self._end_partial(out)
        if self._partial is None:
            if not (found.will_continue or found.partial_args):
                self._call(found, part.thought_signature or "", part, out)
                return
            self._partial = PartialCall(part)
        self._partial.feed(found)
        if not found.will_continue:
            self._end_partial(out)

    def _end_partial(self, out: Chunks) -> None:
        """The last piece of a call has come, or none will."""
        if self._partial is not None:
            part = self._partial.part
            call = part.function_call or wire.FunctionCall()
            call.args, call.partial_args, call.will_continue = self._partial.args(), None, None
            self._partial = None
            self._call(call, part.thought_signature or "", part, out)

    def _call(self, found: wire.FunctionCall, seal: str, part: wire.Part, out: Chunks) -> None:
        self.produced = True
        arguments = _compact(found.args)
        plan = self._plan
        name = plan.names.get(found.name or "", found.name or "")
        if plan.json == "tool" and name == plan.json_tool and not self._json_called:
            self._json_called = True
            self._output.add(arguments)
            out.add(choice=self.index, text=arguments)
            return
        # There is one answer in JSON, and the legacy form has room for one call.
        if (plan.json == "tool" and name == plan.json_tool) or (plan.legacy and self._calls):
            self._keep(_whole(part), out)
            return
        self._output.add(arguments)
        delta = chat_pb2.ToolCallDelta(
            index=self._calls, name=name, arguments=arguments, signature=seal, sealed_by=SEALED_BY if seal else ""
        )
        if plan.legacy:
            delta.kind = chat_pb2.TOOL_KIND_LEGACY_FUNCTION
        else:
            delta.kind = chat_pb2.TOOL_KIND_FUNCTION
            delta.id = found.id or f"{MADE_ID}{secrets.token_hex(8)}"
        if found.extra is not NOTHING:
            delta.function_extra_json = bytes(found.extra)
        if part.extra is not NOTHING:
            delta.extra_json = bytes(part.extra)
        self._calls += 1
        out.add(choice=self.index, tool_call=delta)

    def _keep(self, part: Mapping[str, Raw] | None, out: Chunks, beside: Raw = NOTHING) -> None:
        """A part as an extra of the message, with its place among the message's parts and calls; or what stood beside a
        text that has been told."""
        position = self._calls + (1 if self._texts else 0)
        entry: dict[str, Any] = {"index": self._kept, "position": position}
        entry |= {"extra": beside} if part is None else {"part": part}
        self._kept += 1
        out.add(choice=self.index, delta_extra_json=msgspec.json.encode({KEPT_PARTS: [entry]}))


def _whole(part: wire.Part) -> dict[str, Raw]:
    """The part with all its members."""
    found = members(part.extra) if part.extra is not NOTHING else {}
    for name, value in (("thought", part.thought), ("thoughtSignature", part.thought_signature)):
        if value is not None:
            found[name] = Raw(msgspec.json.encode(value))
    if part.function_call is not None:
        call = members(part.function_call.extra) if part.function_call.extra is not NOTHING else {}
        for name, value in (("id", part.function_call.id), ("name", part.function_call.name)):
            if value is not None:
                call[name] = Raw(msgspec.json.encode(value))
        if part.function_call.args is not NOTHING:
            call["args"] = part.function_call.args
        found["functionCall"] = Raw(join(call) or b"{}")
    return found


def _compact(args: Raw) -> str:
    """The arguments as the text of an object, numbers as they were written."""
    if args is NOTHING or bytes(args) == b"null":
        return "{}"
    return msgspec.json.format(bytes(args), indent=-1).decode()


def _string(raw: Raw) -> str:
    try:
        return msgspec.json.decode(raw, type=str)
    except msgspec.DecodeError:
        return ""


def _logprobs(found: wire.LogprobsResult | None) -> chat_pb2.Logprobs | None:
    if found is None or not found.chosen_candidates:
        return None
    out = chat_pb2.Logprobs(has_content=True)
    tops: Iterable[wire.TopTokens] = found.top_candidates or ()
    padded = [*tops, *(wire.TopTokens() for _ in found.chosen_candidates)]
    for chosen, top in zip(found.chosen_candidates, padded, strict=False):
        token = out.content.add()
        _token(chosen, token)
        for each in top.candidates or ():
            _token(each, token.top.add())
    return out


def _token(found: wire.Token, out: chat_pb2.TokenLogprob) -> None:
    out.token, out.logprob = found.token, found.log_probability
    out.token_bytes = found.token.encode()
