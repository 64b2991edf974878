"""However an answer's bytes arrive, they say the same: events that are like each other, read many at once, say what
each of them says alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trestle.errors import CallError
from trestle.v1 import chat_pb2
from worker.families.openai import FAMILY
from worker.families.openai.family import OpenAIUpstream
from worker.family import Upstream
from worker.relay import decode
from worker.sse import SseParser

UPSTREAM = Upstream("vendor", OpenAIUpstream(base_url="http://127.0.0.1"))
HEAD = '{"id":"a","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":%d,"delta":{"content":'
TAIL = {"plain": '},"finish_reason":null}]}', "padded": '},"finish_reason":null}],"obfuscation":"%s"}'}
END = b'data: {"id":"a","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def event(said: str, form: str = "plain", padding: str = "aB3", choice: int = 0) -> bytes:
    """An event with these letters of JSON in the place of a text."""
    tail = TAIL[form] % padding if form == "padded" else TAIL[form]
    return f"data: {HEAD % choice}{said}{tail}\n\n".encode("utf-8", "surrogatepass")


def text(said: str, **more: Any) -> bytes:
    return event(json.dumps(said, ensure_ascii=False), **more)


def decoded(data: bytes, *pieces: bytes, limit: int = 1 << 20) -> tuple[list[chat_pb2.ChatChunk], str, Any]:
    """The chunks of these pieces, how it failed, what is known of the usage. data: all of them; where there are no
    pieces it is fed event by event."""
    decoder: Any = FAMILY.chat_decoder(chat_pb2.ChatRequest(model="asked"), UPSTREAM)
    sse, response, failed = SseParser(limit), chat_pb2.ChatResponse(), ""
    try:
        for each in pieces:
            if not decoder.done:
                decode(each, sse, decoder, response.chunks)
        for told in () if pieces else sse.feed(data):
            decoder.feed(told, response.chunks)
            if decoder.done:
                break
        decoder.close(True, response.chunks)
    except CallError as error:
        failed = f"{error.reason} {error.message}"
    chunks = list(response.chunks)
    for chunk in chunks:
        if chunk.HasField("started"):
            chunk.started.ClearField("id")  # made up where there is none, as is the time
            chunk.started.ClearField("created")
    return chunks, failed, decoder.usage


def assert_same(data: bytes, *pieces: bytes) -> list[chat_pb2.ChatChunk]:
    alone = decoded(data)
    assert decoded(data, *(pieces or (data,))) == alone
    return alone[0]


def runs(data: bytes, *, choice: int = 0) -> int:
    """How many chunks of these events are read at once, after some that are like them."""
    decoder: Any = FAMILY.chat_decoder(chat_pb2.ChatRequest(model="asked"), UPSTREAM)
    chunks = chat_pb2.ChatResponse().chunks
    decode(b"".join(text(f"{i}", choice=choice) for i in range(8)), SseParser(1 << 20), decoder, chunks)
    before = len(chunks)
    decoder.feed_run(data, chunks)
    return len(chunks) - before


LIKE = [text(word) for word in ("one", " two", "", " thrée", "\n", '"', "\\", "\x7f", "🎉", "a" * 3000)]
OTHERS = [
    b": keep-alive\n\n", b"\n", b"event: x\n", b"data: x\n\n", b"id: 4\n\n", text("b", choice=1),
    text("c", form="padded"), event("null"), event("1"), event('"a","b"'),
    event('"a"}}],"x":[{"y":{"z":"a"'), event('"a\x01"'), event('"\n"'),
    event('"a'), event('b"'), event(""), event('"\udc80"'), event('"\\ud800"'), text("crlf").replace(b"\n", b"\r\n"),
    text("no space").replace(b"data: ", b"data:"), text("lines").replace(b',"model"', b'\ndata: ,"model"'),
    b'data: {"error":{"message":"no"}}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n',
    END,
]  # fmt: skip


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """A stream and its pieces."""
    many = st.lists(st.sampled_from(LIKE), max_size=30).map(b"".join)
    some = st.lists(st.sampled_from(OTHERS), max_size=2).map(b"".join)
    data = b"".join(draw(st.lists(many | some, max_size=6))) + draw(st.sampled_from([b"", END]))
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=5)))
    return data, [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@given(streams())
def test_pieces_of_any_size_say_the_same(stream: tuple[bytes, list[bytes]]) -> None:
    data, pieces = stream
    assert_same(data, *pieces)


@pytest.mark.parametrize("at", range(len(OTHERS)))
def test_what_stands_among_others(at: int) -> None:
    like = b"".join(text(f"{i}") for i in range(20))
    assert_same(like + OTHERS[at] + like + END)
    assert_same(OTHERS[at] + like + END)


@pytest.mark.parametrize("form", TAIL)
def test_those_that_are_alike_are_read_at_once(form: str) -> None:
    like = b"".join(text(f"{i}ä", form=form, padding=f"p{i}") for i in range(30))
    chunks = assert_same(like + END)
    assert [chunk.text for chunk in chunks if chunk.text] == [f"{i}ä" for i in range(30)]
    assert [chunk.answer_extra_json for chunk in chunks if chunk.text] == [
        b'{"obfuscation":"p%d"}' % i if form == "padded" else b"" for i in range(30)
    ]


def test_how_many() -> None:
    assert runs(b"".join(text("a") for _ in range(9)) + END) == 9
    assert runs(b"".join(text("a") for _ in range(9)) + text("cut")[:-1]) == 9
    assert runs(b"".join(text("a", choice=2) for _ in range(9)), choice=2) == 9
    assert runs(text("a") + event('"a","b"') + text("a")) == 0
    assert runs(b"\n" + text("a")) == 0


@pytest.mark.parametrize(
    ("first", "second"), [(event('"a'), event('b"') + event('"c","d"')), (event('"a","b"'), event("") + event('"c"'))]
)
def test_strings_over_several_events_are_none(first: bytes, second: bytes) -> None:
    """As many as there should be, but for where they begin and end."""
    like = b"".join(text(f"{i}") for i in range(9))
    assert runs(first + second) == 0
    _, failed, _ = decoded(b"", like, like + first + second + like)
    assert failed.startswith("UPSTREAM_PROTOCOL")


def test_an_event_beyond_its_limit_is_not_let_through() -> None:
    like = b"".join(text(f"{i}") for i in range(40))
    data = like + text("a" * 3000) + END
    assert decoded(data, data, limit=2000)[1].startswith("UPSTREAM_PROTOCOL")
    assert not decoded(data, data, limit=4000)[1]


@pytest.mark.parametrize("begun", [b"event: error\n", b"data: x\n", b": a comment", b"da"])
def test_what_an_event_began_with_is_not_passed_by(begun: bytes) -> None:
    """The one that goes on with the next piece says something else then, however like the others it looks."""
    like = b"".join(text(f"{i}") for i in range(20))
    chunks = assert_same(like + begun + like + END, like + begun, like + END)
    assert len([chunk for chunk in chunks if chunk.text]) < 40


@pytest.mark.parametrize("padding", ["", "a b", 'a","b":"c', 'a"b', "\\x"])
def test_a_padding_that_is_none(padding: str) -> None:
    like = b"".join(text(f"{i}", form="padded") for i in range(20))
    assert_same(like + text("x", form="padded", padding=padding) + like + END)
    assert_same(like + text("", form="padded") + like + END)


def test_lines_that_are_no_data_are_none_where_others_are() -> None:
    """A chunk over several lines is like no other that is not."""
    like = b"".join(text(f"{i}") for i in range(20))
    several = [like.replace(b',"model"', end + b',"model"') for end in (b"\ndata: ", b"\n")]
    assert_same(several[0] + several[1] + END, *several, END)
