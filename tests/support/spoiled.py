"""Answers that no upstream should give: real ones with values replaced or left out, or with bytes changed. Whatever
comes, a decoder answers with chunks of the contract or with a `CallError`."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from hypothesis import strategies as st

from gateway.openai.completion import ChatFold
from gateway.openai.stream import ChatStreamEncoder
from trestle.errors import CallError
from trestle.v1 import chat_pb2

SCALAR: Final = st.sampled_from(
    [None, True, -1, 0, 2**31, 2**63, 2**64, 10**30, -0.5, 1e300, "", "a", "429", "\ud83c", [], {}, [None], {"a": None}]
)
JSON: Final = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every member and item inside, as its holder and its key."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


@st.composite
def spoiled(draw: st.DrawFn, answer: dict[str, Any]) -> bytes:
    """This answer with up to three of its values replaced or left out."""
    answer = copy.deepcopy(answer)
    for _ in range(draw(st.integers(0, 3))):
        holder, key = draw(st.sampled_from(places(answer)))
        if isinstance(holder, dict) and draw(st.booleans()):
            del holder[key]
        else:
            holder[key] = copy.deepcopy(draw(JSON))
        if not places(answer):
            break
    return json.dumps(answer).encode()


@st.composite
def changed(draw: st.DrawFn, wire: bytes) -> bytes:
    """These bytes with up to five places of them replaced or left out."""
    out = bytearray(wire)
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(out) - 1))
        out[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(out)


def assert_sound(decoder: Any, feed: Callable[[Any, Any], None]) -> None:
    """An answer comes of it, and is whole, or an error, and then nothing has finished. feed: gives the decoder its
    bytes and where chunks go."""
    response = chat_pb2.ChatResponse()
    failure = None
    try:
        feed(decoder, response.chunks)
    except CallError as error:
        failure = error
    for chunk in response.chunks:
        for field, value in chunk.ListFields():
            if field.name.endswith("_json"):
                value.decode("utf-8")
    if failure is not None:
        assert failure.to_status()
        assert not any(chunk.HasField("finish") for chunk in response.chunks)
        return
    _assert_shown(chat_pb2.ChatResponse.FromString(response.SerializeToString()).chunks)


def assert_events(sent: bytes, kind: str) -> None:
    """These are a stream of this kind of object to its proper end."""
    *events, done, rest = sent.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    assert all(json.loads(event.removeprefix(b"data: "))["object"] == kind for event in events)


def _assert_shown(chunks: Sequence[chat_pb2.ChatChunk]) -> None:
    """The gateway makes JSON of these in either form."""
    stream = ChatStreamEncoder(include_usage=True)
    assert_events(stream.feed(chunks) + stream.close(), "chat.completion.chunk")
    answer = ChatFold()
    answer.feed(chunks)
    found = json.loads(answer.encode())
    assert answer.whole
    assert found["usage"]["total_tokens"] >= 0
