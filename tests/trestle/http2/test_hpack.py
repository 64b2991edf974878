"""Header blocks: ours are what the library reads, theirs are read as the library does, and none becomes large."""

from __future__ import annotations

import hpack as library
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trestle.http2.frames import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, ProtocolError
from trestle.http2.hpack import MAX_LIST_BYTES, Fields, HeaderDecoder, encode

NAMES = st.sampled_from([b":path", b":method", b"te", b"content-type", b"x-a", b"x-long-" + b"n" * 200]) | st.binary(
    min_size=1, max_size=20
)
VALUES = st.sampled_from([b"", b"POST", b"trailers", b"v" * 126, b"v" * 127, b"v" * 128, b"v" * 5000]) | st.binary(
    max_size=20
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=8)


def theirs(block: bytes, decoder: library.Decoder) -> Fields | None:
    """What the library reads; None where it cannot."""
    try:
        return [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]
    except library.HPACKError:
        return None


def ours(block: bytes, decoder: HeaderDecoder) -> Fields | None:
    try:
        return decoder.decode(block)
    except ProtocolError:
        return None


@given(FIELDS)
def test_what_we_write(fields: Fields) -> None:
    block = encode(fields)
    assert theirs(block, library.Decoder()) == fields
    assert HeaderDecoder().decode(block) == fields


@given(st.lists(st.tuples(FIELDS, st.booleans(), st.none() | st.integers(0, 4096)), max_size=6))
def test_what_the_library_writes(blocks: list[tuple[Fields, bool, int | None]]) -> None:
    """On one connection, whose table they share."""
    encoder, decoder = library.Encoder(), HeaderDecoder()
    for fields, huffman, size in blocks:
        if size is not None:
            encoder.header_table_size = size
        assert decoder.decode(encoder.encode(fields, huffman=huffman)) == fields


def literal(first: int, name: bytes | None, value: bytes) -> bytes:
    short = b"" if name is None else bytes((len(name),)) + name
    return bytes((first,)) + short + bytes((len(value),)) + value


SHORT = st.binary(max_size=126)
PIECES = (
    st.integers(0x80, 0xFF).map(lambda first: bytes((first,)))
    | st.builds(literal, st.sampled_from([0x00, 0x10, 0x40]), SHORT, SHORT)
    | st.builds(literal, st.integers(0x01, 0x1F) | st.integers(0x41, 0x7F), st.none(), SHORT)
    | st.binary(max_size=4)
)


@given(st.lists(st.lists(PIECES, max_size=8).map(b"".join), max_size=4))
def test_blocks_of_all_sorts(blocks: list[bytes]) -> None:
    """Indexed and literal, kept and not, right and wrong: up to the first that is wrong, which ends the connection."""
    decoder, other = HeaderDecoder(), library.Decoder(MAX_LIST_BYTES)
    for block in blocks:
        expected = theirs(block, other)
        assert ours(block, decoder) == expected
        if expected is None:
            break


@given(FIELDS, st.integers(0, 200), st.booleans())
def test_a_block_that_is_cut(fields: Fields, at: int, huffman: bool) -> None:
    for block in (encode(fields)[:at], library.Encoder().encode(fields, huffman=huffman)[:at]):
        assert ours(block, HeaderDecoder()) == theirs(block, library.Decoder(MAX_LIST_BYTES))


class TestBombs:
    """Small blocks that would become large lists."""

    def kept(self) -> tuple[HeaderDecoder, bytes]:
        """A decoder whose table holds one large field, and the block that names it once."""
        decoder = HeaderDecoder()
        decoder.decode(library.Encoder().encode([("x", "v" * 4000)], huffman=False))
        return decoder, b"\xbe"

    @pytest.mark.parametrize("first", [b"\x10\1a\1b", b"\0\x81\x1f\1b"])
    def test_of_the_table(self, first: bytes) -> None:
        """Read by us alone, and, for a Huffman code, by the library."""
        decoder, field = self.kept()
        assert len(decoder.decode(first + field * 16)) == 17
        with pytest.raises(ProtocolError) as caught:
            decoder.decode(first + field * 17)
        assert caught.value.code == ENHANCE_YOUR_CALM

    def test_of_empty_fields(self) -> None:
        most = MAX_LIST_BYTES // 33
        assert len(HeaderDecoder().decode(b"\0\1a\0" * most)) == most
        with pytest.raises(ProtocolError) as caught:
            HeaderDecoder().decode(b"\0\1a\0" * (most + 1))
        assert caught.value.code == ENHANCE_YOUR_CALM

    @pytest.mark.parametrize("block", [b"\xff" * 30_000, b"\0\x7f" + b"\xff" * 30_000, b"\x3f" + b"\x80" * 30_000])
    def test_of_numbers(self, block: bytes) -> None:
        with pytest.raises(ProtocolError) as caught:
            HeaderDecoder().decode(block)
        assert caught.value.code == COMPRESSION_ERROR
