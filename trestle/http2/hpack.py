"""Header blocks of HTTP/2 (RFC 7541): read with the library, unless they are of the plain sort that gRPC's clients send
again and again; written without any compression, which costs bytes and no state.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError

from trestle.http2.frames import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, ProtocolError

MAX_LIST_BYTES: Final = 64 * 1024
"""Of one header block's fields, as RFC 7541 (4.1) counts them."""
_OVERHEAD: Final = 32
_LONG: Final = 0x7F

Fields = list[tuple[bytes, bytes]]


class HeaderDecoder:
    """One connection's. Blocks are read in the order in which they came, all of them."""

    __slots__ = ("_get", "_library")

    def __init__(self) -> None:
        self._library = Decoder(max_header_list_size=MAX_LIST_BYTES)
        self._get = self._library.header_table.get_by_index

    def decode(self, block: bytes) -> Fields:
        """The fields of a block. Raises `ProtocolError`."""
        try:
            fields = self._plain(block)
            if fields is None:
                fields = [(bytes(name), bytes(value)) for name, value in self._library.decode(block, raw=True)]
        except OversizedHeaderListError as error:
            raise _too_many() from error
        except HPACKError as error:
            raise ProtocolError(COMPRESSION_ERROR, "a header block that cannot be read") from error
        return fields

    def _plain(self, block: bytes) -> Fields | None:
        """The fields of a block that neither changes the table nor is Huffman coded nor holds anything long; None for
        another. A fifth of the library's cost, which was a twentieth of a request's (docs/performance.md)."""
        fields: Fields = []
        get = self._get
        at, end, size = 0, len(block), 0
        try:
            while at < end:
                first = block[at]
                at += 1
                if first > _LONG:
                    if first == 0xFF:
                        return None
                    field = get(first & _LONG)
                elif first & 0x60 or first & 0x0F == 0x0F:
                    return None
                else:
                    if first & 0x0F:
                        name = get(first & 0x0F)[0]
                    else:
                        length = block[at]
                        if length >= _LONG:
                            return None
                        at += 1 + length
                        name = block[at - length : at]
                    length = block[at]
                    if length >= _LONG:
                        return None
                    at += 1 + length
                    if at > end:
                        return None
                    field = (name, block[at - length : at])
                fields.append(field)
                size += len(field[0]) + len(field[1]) + _OVERHEAD
                if size > MAX_LIST_BYTES:
                    raise _too_many()
        except IndexError:
            return None  # it is cut: the library's to say
        return fields


def _too_many() -> ProtocolError:
    return ProtocolError(ENHANCE_YOUR_CALM, "more headers than may be sent")


def encode(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A block of literals, none of which is kept in a table."""
    return b"".join(b"\0" + _string(name) + _string(value) for name, value in fields)


def _string(data: bytes) -> bytes:
    length = len(data)
    if length < _LONG:
        return bytes((length,)) + data
    encoded = bytearray((_LONG,))
    length -= _LONG
    while length > 0x7F:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    encoded.append(length)
    return bytes(encoded) + data
