"""Whole answers, typed."""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trestle.client.errors import UpstreamFailed, ended_early
from trestle.errors import Reason
from trestle.fold import AnswerFold, FoldedCall, FoldedChoice, FoldedText, TextFold
from trestle.rawjson import join_object
from trestle.v1 import chat_pb2, embedding_pb2, moderation_pb2


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """A chat completion that ended well.

    choices: by their index, usually one. usage: None where the worker said none. extra: what the upstream said beside,
    verbatim JSON by member. ignored_params: parameters that the family did not honour.
    """

    id: str
    model: str
    created: int
    choices: Sequence[FoldedChoice]
    usage: chat_pb2.Usage | None = None
    service_tier: str = ""
    system_fingerprint: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)
    ignored_params: Sequence[str] = ()

    @property
    def text(self) -> str:
        """What the first choice says; empty where it only calls tools or refuses."""
        return self.choices[0].text or ""

    @property
    def calls(self) -> list[FoldedCall]:
        """The tools that the first choice calls, in order."""
        return [call for _, call in sorted(self.choices[0].calls.items())]

    @property
    def finish(self) -> chat_pb2.FinishReason.ValueType:
        """Why the first choice ended."""
        finish = self.choices[0].finish
        return chat_pb2.FINISH_REASON_UNSPECIFIED if finish is None else finish.reason

    def message(self, choice: int = 0) -> chat_pb2.Message:
        """The answer as a turn of the conversation, to be sent back with the next request: text, calls, and thinking
        with its seals."""
        said = self.choices[choice]
        message = chat_pb2.Message(
            role=chat_pb2.ROLE_ASSISTANT,
            text=said.text,
            refusal=said.refusal,
            extra_json=join_object(said.delta_extra).encode() if said.delta_extra else b"",
        )
        for _, call in sorted(said.calls.items()):
            message.tool_calls.add(
                id=call.id,
                name=call.name,
                arguments=call.arguments,
                kind=call.kind,
                signature=call.signature,
                sealed_by=call.sealed_by,
                extra_json=join_object(call.extra).encode() if call.extra else b"",
                function_extra_json=join_object(call.function_extra).encode() if call.function_extra else b"",
            )
        for block in said.reasoning:
            message.reasoning.add(
                text=block.text,
                signature=block.signature,
                redacted=block.redacted,
                position=block.position,
                sealed_by=block.sealed_by,
            )
        if said.audio is not None:
            message.audio_json = json.dumps({"id": said.audio.id}).encode()
        return message


@dataclass(frozen=True, slots=True)
class TextAnswer:
    """A legacy text completion that ended well; choices: by their index, the prompt's position times n plus the
    choice's own."""

    id: str
    model: str
    created: int
    choices: Sequence[FoldedText]
    usage: chat_pb2.Usage | None = None
    system_fingerprint: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)
    ignored_params: Sequence[str] = ()

    @property
    def text(self) -> str:
        """What the first choice says."""
        return self.choices[0].text


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors in the order of the inputs; response: as the worker sent it, for who wants the bytes of float32."""

    response: embedding_pb2.EmbedResponse
    ignored_params: Sequence[str] = ()

    @property
    def model(self) -> str:
        """The model that really answered."""
        return self.response.model

    @property
    def usage(self) -> chat_pb2.Usage:
        """What it cost."""
        return self.response.usage

    @property
    def vectors(self) -> list[list[float]]:
        """Made anew each time it is asked for. Raises `UpstreamFailed` for a string of the upstream's own encoding."""
        return [_vector(each) for each in self.response.embeddings]


@dataclass(frozen=True, slots=True)
class Moderation:
    """Judgements in the order of the inputs, in the vendor's own words: response.results_json has them verbatim."""

    response: moderation_pb2.ModerateResponse
    ignored_params: Sequence[str] = ()

    @property
    def model(self) -> str:
        """The model that really answered."""
        return self.response.model

    @property
    def results(self) -> list[dict[str, Any]]:
        """Made anew each time it is asked for."""
        results: list[dict[str, Any]] = json.loads(self.response.results_json)
        return results


def chat_answer(fold: AnswerFold, ignored: Sequence[str]) -> ChatAnswer:
    """The answer that was folded, after a call that ended with OK. Raises `Truncated` when it is not whole."""
    fold.close()
    started = fold.started
    if started is None or not fold.whole:
        raise ended_early(fold.usage)
    return ChatAnswer(
        id=started.id,
        model=started.model,
        created=started.created,
        choices=tuple(choice for _, choice in sorted(fold.choices.items())),
        usage=fold.usage,
        service_tier=started.service_tier,
        system_fingerprint=started.system_fingerprint,
        extra=fold.extra,
        ignored_params=ignored,
    )


def text_answer(fold: TextFold, ignored: Sequence[str]) -> TextAnswer:
    """`chat_answer` for a text completion."""
    fold.close()
    started = fold.started
    if started is None or not fold.whole:
        raise ended_early(fold.usage)
    return TextAnswer(
        id=started.id,
        model=started.model,
        created=started.created,
        choices=tuple(choice for _, choice in sorted(fold.choices.items())),
        usage=fold.usage,
        system_fingerprint=started.system_fingerprint,
        extra=fold.extra,
        ignored_params=ignored,
    )


def _vector(embedding: embedding_pb2.Embedding) -> list[float]:
    if embedding.WhichOneof("value") == "values_json":
        values: list[float] = json.loads(embedding.values_json)
        return values
    if embedding.WhichOneof("value") != "float32_le":
        where = embedding.WhichOneof("value") or "extra_json"
        raise UpstreamFailed(
            Reason.UPSTREAM_PROTOCOL,
            f"The upstream sent vectors in an encoding of its own: response.embeddings[].{where} holds them.",
        )
    numbers = array("f", embedding.float32_le)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()
