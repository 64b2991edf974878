"""What gRPC puts into HTTP/2."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trestle.http2 import messages

TEXT = st.text(st.characters(codec="utf-8"))


@given(st.binary(max_size=300))
def test_frames(message: bytes) -> None:
    framed = messages.prefix_of(message) + message
    assert framed[messages.PREFIX_BYTES :] == message
    assert framed[0] == 0
    assert messages.length(framed) == messages.length(bytearray(framed)) == len(message)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0n", 0), (b"1H", 3600), (b"2M", 120), (b"3S", 3), (b"4m", 0.004), (b"5u", 5e-6), (b"99999999n", 0.099999999),
        (b"99999999H", 10 * 365 * 86400), (b"", None), (b"1", None), (b"m", None), (b"123456789m", None),
        (b"-1m", None), (b"+1m", None), (b"1 m", None), (b"1mm", None), (b"1.0m", None), (b"1m\n", None),
        ("\N{ARABIC-INDIC DIGIT ONE}m".encode(), None),
    ],
)  # fmt: skip
def test_timeouts_that_come(value: bytes, seconds: float | None) -> None:
    assert messages.seconds(value) == (None if seconds is None else pytest.approx(seconds))


@given(st.floats(0, 1e12))
def test_timeouts_that_go(left: float) -> None:
    """Are such as gRPC knows, and never shorter than they should be, as far as it knows such long ones."""
    value = messages.timeout_value(left)
    assert len(value) <= 9
    said = messages.seconds(value)
    assert said is not None
    assert said >= min(left, 99_999_999)
    if left < 1e5:
        assert said <= left + 0.0011


@given(st.integers(0, 16), TEXT)
def test_statuses(code: int, text: str) -> None:
    fields = dict(messages.status_fields(code, text))
    assert fields[b"grpc-status"] == str(code).encode()
    value = fields.get(b"grpc-message", b"")
    assert all(0x20 <= byte <= 0x7E for byte in value)
    assert unquote_to_bytes(value).decode() == text
    assert messages.status_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(b"%", "%"), (b"%4", "%4"), (b"%zz", "%zz"), (b"a%20b%FF", "a b\N{REPLACEMENT CHARACTER}"), (b"\xe9", "\xe9")],
)
def test_a_status_that_is_not_well_written(value: bytes, text: str) -> None:
    assert messages.status_text(value) == text


ASCII = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E))


@given(st.lists(st.tuples(st.just("x-a"), ASCII) | st.tuples(st.just("x-a-bin"), st.binary()), max_size=4))
def test_metadata(metadata: list[tuple[str, str | bytes]]) -> None:
    read = list(hpack.Decoder().decode(messages.metadata_block(metadata), raw=True))
    values = [(name.decode(), messages.metadata_value(name.decode(), bytes(value))) for name, value in read]
    assert values == metadata


@pytest.mark.parametrize(
    ("value", "meant"), [(b"AAE=", b"\0\1"), (b"AAE", b"\0\1"), (b"AA==,AQ", b"\0,\1"), (b"", b"")]
)
def test_binary_metadata_of_others(value: bytes, meant: bytes) -> None:
    assert messages.metadata_value("x-bin", value) == meant


@pytest.mark.parametrize("value", [b"A", b"AAAAA", b"AA==,A"])
def test_binary_metadata_that_is_none(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"^x-bin is not base64\.$"):
        messages.metadata_value("x-bin", value)


def test_metadata_that_cannot_be_sent() -> None:
    with pytest.raises(UnicodeEncodeError):
        messages.metadata_block([("x-a", "é")])


CODINGS = pytest.mark.parametrize(("coding", "compress"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])


class TestCompression:
    @CODINGS
    @pytest.mark.parametrize("size", [0, 1, 999, 1000])
    def test_of_what_may_be(self, coding: bytes, compress: Callable[[bytes], bytes], size: int) -> None:
        assert messages.unzipped(compress(bytes(size)), coding, 1000) == bytes(size)

    @CODINGS
    def test_of_what_becomes_too_large(self, coding: bytes, compress: Callable[[bytes], bytes]) -> None:
        assert messages.unzipped(compress(bytes(1001)), coding, 1000) is None
        bomb = compress(bytes(50_000_000))
        tracemalloc.start()
        try:
            assert messages.unzipped(bomb, coding, 1000) is None
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()

    @CODINGS
    def test_of_what_is_cut_or_none(self, coding: bytes, compress: Callable[[bytes], bytes]) -> None:
        whole = compress(b"abc" * 100)
        for at in (0, 1, 10, len(whole) - 1):
            assert messages.unzipped(whole[:at], coding, 1000) is None
        assert messages.unzipped(b"abc", coding, 1000) is None

    @pytest.mark.parametrize("coding", [b"identity", b"zstd", b""])
    def test_in_no_way_that_is_known(self, coding: bytes) -> None:
        assert messages.unzipped(gzip.compress(b"a"), coding, 1000) is None
