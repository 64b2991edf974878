"""Frames as RFC 9113 draws them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trestle.http2 import frames
from trestle.http2.frames import (
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    HAS_PRIORITY,
    HEAD_BYTES,
    HEADERS,
    PADDED,
    PROTOCOL_ERROR,
    ProtocolError,
)

Frame = tuple[int, int, int, bytes]


def read(data: bytes) -> list[Frame]:
    """Kind, flags, stream and payload of each frame."""
    found = []
    while data:
        size = int.from_bytes(data[:3], "big")
        end = HEAD_BYTES + size
        assert len(data) >= end
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9:end]))
        data = data[end:]
    return found


def test_bytes() -> None:
    assert frames.frame(frames.PING, frames.ACK, 0, b"12345678") == b"\0\0\x08\x06\x01\0\0\0\x0012345678"
    assert frames.message(5, b"ab", END_STREAM) == b"\0\0\x07\x00\x01\0\0\0\x05\0\0\0\0\x02ab"
    assert frames.rst_stream(2**31 - 1, frames.CANCEL) == b"\0\0\x04\x03\0\x7f\xff\xff\xff\0\0\0\x08"
    assert frames.goaway(7, 2, "no") == b"\0\0\x0a\x07\0\0\0\0\0\0\0\0\x07\0\0\0\x02no"
    assert frames.window_update(3, 2**31 - 1) == b"\0\0\x04\x08\0\0\0\0\x03\x7f\xff\xff\xff"
    assert frames.settings({1: 0, 4: 2**31 - 1}) == b"\0\0\x0c\x04\0\0\0\0\0\0\1\0\0\0\0\0\4\x7f\xff\xff\xff"


def test_the_codes_are_those_of_the_rfc() -> None:
    assert (frames.NO_ERROR, frames.STREAM_CLOSED, frames.COMPRESSION_ERROR, frames.ENHANCE_YOUR_CALM) == (0, 5, 9, 11)
    assert (frames.DATA, HEADERS, frames.GOAWAY, CONTINUATION) == (0, 1, 7, 9)
    assert (frames.HEADER_TABLE_SIZE, frames.INITIAL_WINDOW_SIZE, frames.MAX_HEADER_LIST_SIZE) == (1, 4, 6)


@given(st.binary(max_size=300), st.booleans(), st.integers(16, 50))
def test_a_header_block_in_frames(block: bytes, end: bool, most: int) -> None:
    found = read(frames.headers(9, block, end, most))
    assert b"".join(each[3] for each in found) == block
    assert all(len(each[3]) <= most and each[2] == 9 for each in found)
    assert [each[0] for each in found] == [HEADERS] + [CONTINUATION] * (len(found) - 1)
    assert [bool(each[1] & END_HEADERS) for each in found] == [False] * (len(found) - 1) + [True]
    assert bool(found[0][1] & END_STREAM) == end
    assert not any(each[1] & END_STREAM for each in found[1:])


@given(st.dictionaries(st.integers(7, 2**16 - 1), st.integers(0, 2**32 - 1)))
def test_settings(values: dict[int, int]) -> None:
    ((_, _, _, payload),) = read(frames.settings(values))
    assert dict(frames.read_settings(payload)) == values


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (bytes(7), FRAME_SIZE_ERROR),
        (b"\0\x04\x80\0\0\0", FLOW_CONTROL_ERROR),
        (b"\0\x05\0\0\x3f\xff", PROTOCOL_ERROR),
        (b"\0\x05\x01\0\0\0", PROTOCOL_ERROR),
        (b"\0\x02\0\0\0\2", PROTOCOL_ERROR),
        (b"\0\x02\0\0\0\1" + b"\0\x02\0\0\0\2", PROTOCOL_ERROR),
    ],
)
def test_settings_that_may_not_be(payload: bytes, code: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        frames.read_settings(payload)
    assert caught.value.code == code


@given(st.binary(max_size=50), st.integers(0, 255), st.booleans())
def test_padding_and_priority_go(payload: bytes, padding: int, priority: bool) -> None:
    flags = PADDED | (HAS_PRIORITY if priority else 0)
    whole = bytes((padding,)) + bytes(5 if priority else 0) + payload + bytes(padding)
    assert frames.unpadded(flags, whole) == payload


@pytest.mark.parametrize(
    ("flags", "payload", "code"),
    [
        (PADDED, b"", FRAME_SIZE_ERROR),
        (PADDED, b"\1", PROTOCOL_ERROR),
        (PADDED, b"\xffabc", PROTOCOL_ERROR),
        (HAS_PRIORITY, b"1234", PROTOCOL_ERROR),
        (PADDED | HAS_PRIORITY, b"\x0112345", PROTOCOL_ERROR),
    ],
)
def test_padding_that_cannot_be(flags: int, payload: bytes, code: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        frames.unpadded(flags, payload)
    assert caught.value.code == code


@given(st.binary(max_size=60), st.booleans(), st.integers(16, 40), st.lists(st.binary(max_size=9), max_size=3))
def test_the_first_header_block_says_that_the_table_is_empty(
    block: bytes, end: bool, most: int, before: list[bytes]
) -> None:
    data = b"".join(frames.message(3, each) for each in before)
    rest = frames.headers(3, block, end, most) + frames.headers(5, b"x", end=True)
    assert frames.with_empty_table(data) is data
    found = read(frames.with_empty_table(data + rest))
    assert found[: len(before)] == read(data)
    blocks = found[len(before) :]
    assert blocks[0] == (HEADERS, END_STREAM if end else 0, 3, b"\x20")
    assert b"".join(each[3] for each in blocks[1:-1]) == block
    assert [each[0] for each in blocks[1:-1]] == [CONTINUATION] * (len(blocks) - 2)
    assert [each[1] for each in blocks[1:-1]] == [0] * (len(blocks) - 3) + [END_HEADERS]
    assert blocks[-1] == (HEADERS, END_STREAM | END_HEADERS, 5, b"x")
