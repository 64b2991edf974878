"""A folded answer to the JSON of a chat completion in one piece. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.openai import render
from trestle.fold import AnswerFold, FoldedCall, FoldedChoice
from trestle.v1 import chat_pb2

Object = dict[str, Any]


class ChatFold(AnswerFold):
    """An answer on its way to one piece: fed with chunks, then encoded."""

    @property
    def chars(self) -> int:
        """Of what was generated."""
        return sum(
            len(choice.text or "")
            + sum(map(len, choice.pieces))
            + len(choice.refusal or "")
            + sum(len(block.text) for block in choice.reasoning)
            + sum(len(call.name) + len(call.arguments) for call in choice.calls.values())
            for choice in self.choices.values()
        )

    @property
    def model(self) -> str:
        """What the upstream calls the one that answers; empty until it has begun."""
        return self.started.model if self.started is not None else ""

    @property
    def finish(self) -> str:
        """The first choice's finish_reason; empty where it has none."""
        first = self.choices.get(0)
        return render.finish_word(first.finish) if first is not None and first.finish is not None else ""

    def encode(self) -> bytes:
        """The body of a 200; the answer is whole."""
        self.close()
        started = self.started
        assert started is not None
        out: Object = {
            "id": started.id,
            "object": "chat.completion",
            "created": started.created,
            "model": started.model,
            "choices": [_choice(index, self.choices[index]) for index in sorted(self.choices)],
        }
        if self.usage is not None:
            out["usage"] = render.usage(self.usage)
        out.update(render.service_tier(started))
        out["system_fingerprint"] = started.system_fingerprint if started.HasField("system_fingerprint") else None
        return msgspec.json.encode(render.extend_folded(out, self.extra))


def _choice(index: int, choice: FoldedChoice) -> Object:
    message: Object = {"role": "assistant", "content": choice.text, "refusal": choice.refusal}
    if choice.text is None and choice.refusal is None and not choice.calls and choice.audio is None:
        message["content"] = ""  # an empty answer is a text, not the absence of one
    if choice.reasoning:
        thought = "".join(block.text for block in choice.reasoning)
        if thought:
            message["reasoning_content"] = thought
        if any(block.signature or block.redacted for block in choice.reasoning):
            message["reasoning_blocks"] = [
                render.reasoning_block(i, b.text, b.signature, b.redacted, b.sealed_by, b.position)
                for i, b in enumerate(choice.reasoning)
            ]
    calls = [choice.calls[position] for position in sorted(choice.calls)]
    legacy = [call for call in calls if call.kind == chat_pb2.TOOL_KIND_LEGACY_FUNCTION]
    listed = [_call(call) for call in calls if call.kind != chat_pb2.TOOL_KIND_LEGACY_FUNCTION]
    if listed:
        message["tool_calls"] = listed
    if legacy:
        message["function_call"] = render.extend_folded(
            {"name": legacy[0].name, "arguments": legacy[0].arguments}, legacy[0].function_extra
        )
    if choice.audio is not None:
        message["audio"] = {
            "id": choice.audio.id,
            "data": choice.audio.data,
            "expires_at": choice.audio.expires_at,
            "transcript": choice.audio.transcript,
        }
    render.extend_folded(message, choice.delta_extra)
    out: Object = {"index": index, "message": message}
    if choice.logprobs is not None:
        out["logprobs"] = render.logprobs(choice.logprobs)
    elif "logprobs" not in choice.extra:  # where they are in a vendor's own form
        out["logprobs"] = None
    out["finish_reason"] = render.finish_word(choice.finish) if choice.finish is not None else "stop"
    return render.extend_folded(out, choice.extra)


def _call(call: FoldedCall) -> Object:
    if call.kind == chat_pb2.TOOL_KIND_CUSTOM:
        custom = render.extend_folded({"name": call.name, "input": call.arguments}, call.function_extra)
        out: Object = {"id": call.id, "type": "custom", "custom": custom}
    else:
        function = render.extend_folded({"name": call.name, "arguments": call.arguments}, call.function_extra)
        out = {"id": call.id, "type": "function", "function": function}
    if call.signature:
        out["seal"] = render.seal(call.signature, call.sealed_by)
    return render.extend_folded(out, call.extra)
