"""The SSE parser: every form of the standard, and the same events however the bytes are cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trestle.errors import CallError, Reason
from worker.sse import Event, SseParser

LIMIT = 1000


def parse(*pieces: bytes, limit: int = LIMIT) -> list[Event]:
    parser = SseParser(limit)
    return list(itertools.chain.from_iterable(parser.feed(piece) for piece in pieces))


FORMS: list[tuple[str, bytes, list[Event]]] = [
    ("lf", b"data: a\n\ndata: b\n\n", [("", b"a"), ("", b"b")]),
    ("crlf", b"data: a\r\n\r\ndata: b\r\n\r\n", [("", b"a"), ("", b"b")]),
    ("cr", b"data: a\r\rdata: b\r\r", [("", b"a"), ("", b"b")]),
    ("mixed ends", b"data: a\r\n\rdata: b\n\r\ndata: c\r\n\n", [("", b"a"), ("", b"b"), ("", b"c")]),
    ("lines join with LF", b"data: a\r\ndata: b\rdata: c\n\n", [("", b"a\nb\nc")]),
    ("an empty line among them", b"data: a\ndata:\ndata: c\n\n", [("", b"a\n\nc")]),
    ("data without a colon", b"data\ndata\n\n", [("", b"\n")]),
    ("data that is empty", b"data:\n\n", [("", b"")]),
    ("one blank is dropped, no more", b"data:a\n\ndata:  b\n\n", [("", b"a"), ("", b" b")]),
    ("colons in the value", b'data: {"a":"b:c"}\n\n', [("", b'{"a":"b:c"}')]),
    ("comments", b": keep-alive\n\n:\n\ndata: a\n: between\ndata: b\n\n", [("", b"a\nb")]),
    ("names", b"event: ping\ndata: a\n\ndata: b\n\n", [("ping", b"a"), ("", b"b")]),
    ("a name after the data", b"data: a\nevent: late\n\n", [("late", b"a")]),
    ("a name without data", b"event: ping\n\ndata: a\n\n", [("", b"a")]),
    ("ids and retry", b"id: 1\nretry: 10\ndata: a\nid: \0\n\nid\n\ndata: b\n\n", [("", b"a"), ("", b"b")]),
    ("unknown fields", b"datax: no\nDATA: no\n data: no\nfoo\ndata: a\n\n", [("", b"a")]),
    ("byte order mark", b"\xef\xbb\xbfdata: a\n\n", [("", b"a")]),
    ("only the first mark", b"\xef\xbb\xbf\xef\xbb\xbfdata: no\ndata: a\n\n", [("", b"a")]),
    ("a mark later is a letter", b"data: a\n\n\xef\xbb\xbfdata: no\ndata: b\n\n", [("", b"a"), ("", b"b")]),
    ("half a mark", b"\xef\xbbdata: no\ndata: a\n\n", [("", b"a")]),
    ("NUL", b"data: a\0b\n\n", [("", b"a\0b")]),
    ("UTF-8", "data: né 🎉\n\n".encode(), [("", "né 🎉".encode())]),
    ("blank lines", b"\n\r\n\rdata: a\n\n\n\n", [("", b"a")]),
    ("no blank line at the end", b"data: a\n\ndata: b\n", [("", b"a")]),
    ("no line end at the end", b"data: a\n\ndata: b", [("", b"a")]),
    ("nothing", b"", []),
]


@pytest.mark.parametrize(("wire", "events"), [pytest.param(*form, id=name) for name, *form in FORMS])
class TestForms:
    def test_whole(self, wire: bytes, events: list[Event]) -> None:
        assert parse(wire) == events

    def test_one_byte_at_a_time(self, wire: bytes, events: list[Event]) -> None:
        assert parse(*(wire[i : i + 1] for i in range(len(wire)))) == events

    def test_in_two_pieces_at_every_place(self, wire: bytes, events: list[Event]) -> None:
        for at in range(len(wire) + 1):
            assert parse(wire[:at], b"", wire[at:]) == events, at


LINES = st.lists(
    st.sampled_from(
        [b"data: ", b"data:", b"data", b"event: x", b"id: 1", b": c", b"", b"a", "né🎉".encode(), b"\xef\xbb\xbf"]
    ).flatmap(lambda line: st.sampled_from([b"\n", b"\r", b"\r\n", b""]).map(lambda end: line + end)),
    max_size=30,
).map(b"".join)


@given(wire=LINES, data=st.data())
def test_cuts_anywhere_change_nothing(wire: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    pieces = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    assert parse(*pieces) == parse(wire)


@given(texts=st.lists(st.text(), max_size=8), end=st.sampled_from(["\n", "\r", "\r\n"]))
def test_reads_what_a_writer_of_the_standard_writes(texts: list[str], end: str) -> None:
    lines = [text.replace("\r\n", "\n").replace("\r", "\n") for text in texts]
    wire = "".join("".join(f"data: {line}{end}" for line in text.split("\n")) + end for text in lines)
    assert parse(wire.encode()) == [("", text.encode()) for text in lines]


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([b"data: " + b"x" * (LIMIT + 1) + b"\n\n"], id="one line in one read"),
        pytest.param([b"data: ", *[b"x" * 100] * 11], id="a line that never ends"),
        pytest.param([b"data: xxxxxxxxxx\n"] * 100, id="lines that never end"),
        pytest.param([b"data:xxxxxxxxxx\n"] * 100, id="lines without the blank"),
        pytest.param([b"data:xxxxxxxxxx\n" * 100], id="lines without the blank in one read"),
        pytest.param([b"data:xxxxxxxxxx\n" * 100 + b"\n"], id="an event of such lines in one read"),
        pytest.param([b"data: " + b"x" * 900 + b"\n", b"data: " + b"x" * 200], id="a second line that never ends"),
        pytest.param([b"event: " + b"x" * (LIMIT + 1)], id="another field"),
        pytest.param([b": " + b"x" * (LIMIT + 1)], id="a comment"),
    ],
)
def test_an_oversized_event_is_an_error(pieces: list[bytes]) -> None:
    with pytest.raises(CallError) as caught:
        parse(*pieces)
    assert caught.value.reason is Reason.UPSTREAM_PROTOCOL


EXACT = b"data: " + b"x" * (LIMIT - 6)


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([EXACT + b"\n\n"], id="one line"),
        pytest.param([EXACT, b"\n\n"], id="a line whose end comes later"),
        pytest.param([EXACT[:500], EXACT[500:], b"\n", b"\n"], id="in pieces"),
        pytest.param([b"data:" + EXACT[6:] + b"x\n\n"], id="without the blank"),
        pytest.param([b"data: " + b"x" * 494 + b"\ndata: " + b"x" * 494 + b"\n\n"], id="two lines"),
        pytest.param([b"data: " + b"x" * 494 + b"\n", b"data: " + b"x" * 494, b"\n\n"], id="two lines in two reads"),
        pytest.param([b"data:" + b"x" * 495 + b"\n", b"data: " + b"x" * 494, b"\n\n"], id="two kinds of lines"),
        pytest.param([b"event: " + b"n" * 500 + b"\nid: 1\n" + EXACT + b"\n\n"], id="beside other fields"),
    ],
)
def test_the_limit_is_exact(pieces: list[bytes]) -> None:
    """So many bytes of `data` lines may one event have, however they come; one more is too many."""
    for before in (b"", b"data: before\n\n", b"\xef\xbb\xbf", b"event: x\n\n"):
        for cut in (False, True):
            whole = [before, *pieces] if cut else [before + pieces[0], *pieces[1:]]
            assert parse(*whole)[-1][1].count(b"x") >= LIMIT - 12
            with pytest.raises(CallError):
                parse(*whole, limit=LIMIT - 1)


def test_lines_in_pieces_do_not_add_up() -> None:
    """What an earlier event's unfinished lines held is no part of a later one."""
    for cut in (1, 500, len(EXACT)):
        assert len(parse(*[EXACT[:cut], EXACT[cut:] + b"\n\n"] * 5)) == 5
        assert len(parse(*[EXACT[:cut], EXACT[cut:] + b"\n", b"\n"] * 5)) == 5


def test_a_byte_order_mark_in_pieces_does_not_count() -> None:
    assert parse(b"\xef", b"\xbb", b"\xbf" + EXACT, b"\n\n") == [("", EXACT[6:])]


def test_a_name_that_is_no_utf_8() -> None:
    assert parse(b"event: a\xffb\ndata: c\n\n") == [("a\ufffdb", b"c")]


def test_the_limit_is_each_events_own() -> None:
    event = b"data: " + b"x" * (LIMIT - 100) + b"\n\n"
    assert len(parse(*[event] * 10)) == 10
    assert len(parse(event * 10)) == 10


@pytest.mark.parametrize(
    ("wire", "rest"),
    [
        (b'data: {"a":1}', ("", b'{"a":1}')),
        (b'data: {"a":1}\n', ("", b'{"a":1}')),
        (b'data: {"a":1}\r', ("", b'{"a":1}')),
        (b'data: {"a":1}\r\n', ("", b'{"a":1}')),
        (b'event: error\ndata: {"a":\ndata: 1}', ("error", b'{"a":\n1}')),
        (b"data: [DONE]", ("", b"[DONE]")),
        (b'data: {"a":1', None),
        (b"data: [DONE", None),
        (b"data: 1", None),
        (b'{"a":1}', None),
        (b'data: {"a":1}\n\n', None),
        (b"event: message_stop", None),
        (b"", None),
    ],
)
def test_what_the_end_leaves(wire: bytes, rest: Event | None) -> None:
    for pieces in ([wire], [wire[i : i + 1] for i in range(len(wire))]):
        parser = SseParser(LIMIT)
        for piece in pieces:
            parser.feed(piece)
        assert parser.rest() == rest


ERROR = b'{\n  "error": {\n    "code": 429,\n    "message": "No: more.",\n    "data": "x"\n  }\n}\n'


@pytest.mark.parametrize(
    ("wire", "stray"),
    [
        (b'{"error":1}', b'{"error":1}\n'),
        (b'data: a\n\n{"error":1}\n', b'{"error":1}\n'),
        (b"data: a\n\n" + ERROR, ERROR),
        (b"data: a\r\n\r\n" + ERROR.replace(b"\n", b"\r\n"), ERROR),
        (b"data: a\n\n: comment\nid: 1\nretry: 1\nevent: error\n" + ERROR + b"\n", ERROR),
        (b'data: a\n{"error":1}', b'{"error":1}\n'),
        (b'{"error":1}\ndata: a\n\n', b""),
        (b'{"error":1}\ndata:a\n\n', b""),
        (b'{"error":1}\n\ndata: a\n\n{"error":2}', b'{"error":2}\n'),
        (b"data: a\n\ndata: b", b""),
        (b"", b""),
    ],
)
def test_what_comes_without_a_frame(wire: bytes, stray: bytes) -> None:
    """Is kept until data come."""
    for pieces in ([wire], [wire[i : i + 1] for i in range(len(wire))]):
        parser = SseParser(LIMIT)
        for piece in pieces:
            parser.feed(piece)
        assert parser.stray() == stray
        parser = SseParser(LIMIT)
        for piece in pieces:
            parser.feed(piece)
        parser.rest()
        assert parser.stray() == stray


def test_no_more_of_it_is_kept_than_an_error_may_be() -> None:
    parser = SseParser(1 << 20)
    for _ in range(100):
        parser.feed(b"x" * 5000 + b"\ny\n")
    parser.feed(b"z" * 200_000)
    assert parser.stray() == b"z" * (64 * 1024 - 1) + b"\n"
