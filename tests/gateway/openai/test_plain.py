"""Chunks that are nothing but text, told by their size: what is written of them is what is written of each alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.openai.plain import plain_texts
from gateway.openai.stream import ChatStreamEncoder
from trestle.v1 import chat_pb2

Chunk = chat_pb2.ChatChunk
STARTED = Chunk(started=chat_pb2.Started(id="a", model="m", created=7))
PADDED = b'{"obfuscation":"aB3"}'
NEWER = Chunk.FromString(b"\xa2\x06\x01x")  # a field that is not known here
PLAIN = [
    Chunk(text="a"), Chunk(text="thrée"), Chunk(text='"\\\n\x00\x7f\u2028🎉'), Chunk(text="b" * 125),
    Chunk(text="a", answer_extra_json=PADDED), Chunk(text="é", answer_extra_json=b'{"obfuscation":""}'),
]  # fmt: skip
OTHERS = [
    Chunk(), NEWER, Chunk(choice=1), Chunk(choice=1, text="c"), Chunk(choice=128, text="c"),
    Chunk(text=""), Chunk(text="b" * 126), Chunk(text="b" * 20000),
    Chunk(text="d", choice_extra_json=b'{"x":1}'), Chunk(text="d", delta_extra_json=b'{"x":1}'),
    Chunk(text="d", answer_extra_json=b'{"id":"z"}'), Chunk(text="d", answer_extra_json=b'{ "x": 1 }'),
    Chunk(text="d", answer_extra_json=b'{"x":1}'), Chunk(text="d", answer_extra_json=b'{"obfuscation":1}'),
    Chunk(text="d", answer_extra_json=b'{"obfuscation":"' + b"p" * 200 + b'"}'), Chunk(answer_extra_json=PADDED),
    Chunk(text="d", logprobs=chat_pb2.Logprobs(has_content=True)), Chunk(reasoning="e"), Chunk(refusal="f"),
    Chunk(tool_call=chat_pb2.ToolCallDelta(id="g", name="h", arguments="{" + " " * 300)),
    Chunk(usage=chat_pb2.Usage(input_tokens=1)), Chunk(finish=chat_pb2.Finish(reason=chat_pb2.FINISH_REASON_STOP)),
]  # fmt: skip


def size_of(*chunks: Chunk) -> int:
    return chat_pb2.ChatResponse(chunks=chunks).ByteSize()


def assert_same(*batches: list[Chunk], include_usage: bool = False) -> bytes:
    """Written with their size known and without it; returns what."""
    known, each = ChatStreamEncoder(include_usage), ChatStreamEncoder(include_usage)
    said = b""
    for chunks in batches:
        written = known.feed(chat_pb2.ChatResponse(chunks=chunks).chunks, size_of(*chunks))
        assert written == each.feed(chunks)
        said += written
    for name in ("chars", "finished", "finish", "usage", "model", "unknown", "whole"):
        assert getattr(known, name) == getattr(each, name)
    return said


@given(st.lists(st.lists(st.sampled_from(PLAIN + OTHERS), min_size=1, max_size=12), max_size=4), st.booleans())
def test_any_batches(batches: list[list[Chunk]], include_usage: bool) -> None:
    assert_same([STARTED], *batches, include_usage=include_usage)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=4), st.booleans())
def test_any_texts(texts: list[str], include_usage: bool) -> None:
    assert_same([STARTED, *(Chunk(text=text) for text in texts)], include_usage=include_usage)


@pytest.mark.parametrize("other", range(len(OTHERS)))
def test_one_other_among_them(other: int) -> None:
    for plain in (PLAIN[:4], PLAIN[4:] * 2):
        assert_same([STARTED, *plain, OTHERS[other], *plain], [OTHERS[other], *plain], [*plain, OTHERS[other]])


def test_they_are_told() -> None:
    texts = ["a", "thrée", '"\\\n\x00\x7f\u2028🎉', "b" * 125]
    others = [Chunk(text=""), OTHERS[-3]]
    assert plain_texts(PLAIN[:4], size_of(*PLAIN[:4])) == (texts, [], [])
    mixed = [others[0], *PLAIN[:4], others[1]]
    assert plain_texts(mixed, size_of(*mixed)) == (["", *texts, ""], [], [0, 5])
    padded = [PLAIN[0], PLAIN[4]]
    assert plain_texts(padded, size_of(*padded)) == (["a", "a"], [b"", PADDED], [])


@pytest.mark.parametrize(
    "chunks",
    [
        [Chunk(choice=1, text="c"), Chunk(text="a"), Chunk()],
        [Chunk(choice=1, text="c"), Chunk(text="a"), Chunk(text="")],
        [Chunk(text="a"), Chunk(text="a", answer_extra_json=PADDED), Chunk(text="a", choice_extra_json=PADDED)],
        [Chunk(text="a", delta_extra_json=b"{}"), Chunk(text="a", answer_extra_json=PADDED)],
        [Chunk(text="b" * 126), Chunk(text="a")],
        [Chunk(), Chunk(), Chunk(text="a")],
    ],
)
def test_they_are_not_told_where_one_says_more(chunks: list[Chunk]) -> None:
    """Though others say less."""
    assert plain_texts(chunks, size_of(*chunks)) is None
