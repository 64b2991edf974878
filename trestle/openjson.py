"""Typed JSON decoding that keeps what the types do not name.

A msgspec Struct either passes over unknown members or refuses them; a bridge must carry them on, byte for byte. So a
type tree here is decoded strictly first, which costs nothing extra when every member is known. Only when that fails are
the unknown members of each object gathered into one reserved member and the result decoded again: `Open.extra` then
holds them as one JSON object, in their order, numbers as they were written. The reserved names are random, so nobody
outside can send them.

Used by both services; `trestle.client` does not need it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import Raw
from msgspec.inspect import ListType, StructType, Type, UnionType, type_info

_RESERVED: Final = f"extra-{secrets.token_hex(16)}"
_WHOLE: Final = f"whole-{secrets.token_hex(16)}"
OTHER_TAG: Final = f"other-{secrets.token_hex(16)}"
"""The tag of a union's open arm: a Struct with this tag and a field `whole` gets every object whose tag no other arm
has."""

NOTHING: Final = Raw(b"")

T = TypeVar("T")


class Open(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    """An object that may hold more than its fields; `extra` is those members as one JSON object, or `NOTHING`."""

    extra: Raw = msgspec.field(name=_RESERVED, default=NOTHING)


class Other(msgspec.Struct, forbid_unknown_fields=True, tag=OTHER_TAG, tag_field="type", gc=False):
    """The open arm of a union tagged by `type`: the object as it was written."""

    whole: Raw = msgspec.field(name=_WHOLE)


_RawObject: Final = msgspec.json.Decoder(dict[str, Raw])
_RawArray: Final = msgspec.json.Decoder(list[Raw])
_Text: Final = msgspec.json.Decoder(str)
_FIRST: Final = re.compile(rb"[^ \t\r\n]")


def members(data: bytes | Raw) -> dict[str, Raw]:
    """The members of one JSON object, each value as it was written. Raises msgspec.DecodeError."""
    return _RawObject.decode(data)


def join(parts: Mapping[str, Raw]) -> bytes:
    """One JSON object of these members; `b""` of none."""
    return msgspec.json.encode(parts) if parts else b""


class OpenDecoder(Generic[T]):
    """Decodes JSON into `T`, a type tree whose objects are `Open` Structs.

    `decode` raises msgspec.DecodeError or ValidationError (whose path names the place at fault) and RecursionError for
    input nested too deeply.
    """

    __slots__ = ("_shape", "_strict")

    def __init__(self, root: type[T]) -> None:
        self._strict = msgspec.json.Decoder(root)
        self._shape = _shape_of(type_info(root))

    def decode(self, data: bytes | Raw) -> T:
        """The typed value, with every unknown member of it kept in an `extra`."""
        try:
            return self._strict.decode(data)
        except msgspec.ValidationError:
            # Unknown members, an open arm, or a real fault: the second pass tells, with the same path.
            return self._strict.decode(self._shape.gather(data) if self._shape else data)


class _Shape:
    """Where in a type tree the open objects stand: at most one array and some objects at each place."""

    __slots__ = ("by_tag", "item", "known", "other", "tag_field")

    def __init__(self) -> None:
        self.item: _Shape | None = None
        self.known: dict[str, _Shape | None] | None = None
        self.tag_field = ""
        self.by_tag: dict[str, dict[str, _Shape | None]] = {}
        self.other = False

    def gather(self, data: bytes | Raw) -> bytes | Raw:
        """The same JSON with the unknown members of its objects gathered."""
        found = _FIRST.search(data)
        first = found.group() if found else b""
        if first == b"[" and self.item is not None:
            item = self.item
            return msgspec.json.encode([Raw(item.gather(each)) for each in _RawArray.decode(data)])
        if first == b"{":
            return self._gather_object(data)
        return data

    def _gather_object(self, data: bytes | Raw) -> bytes | Raw:
        parts = members(data)
        known = self.known
        if self.by_tag:
            tag = _tag(parts.get(self.tag_field))
            known = self.by_tag.get(tag) if tag is not None else None
            if known is None and tag is not None and self.other:
                return msgspec.json.encode({self.tag_field: OTHER_TAG, _WHOLE: Raw(data)})
        if known is None:
            return data
        kept: dict[str, Any] = {}
        extra: dict[str, Raw] = {}
        for name, value in parts.items():
            if name in known:
                shape = known[name]
                kept[name] = value if shape is None else Raw(shape.gather(value))
            else:
                extra[name] = value
        if extra:
            kept[_RESERVED] = extra
        return msgspec.json.encode(kept)


def _tag(raw: Raw | None) -> str | None:
    if raw is None:
        return None
    try:
        return _Text.decode(raw)
    except msgspec.DecodeError:
        return None


def _shape_of(info: Type) -> _Shape | None:
    shape = _Shape()
    for each in info.types if isinstance(info, UnionType) else (info,):
        if isinstance(each, ListType):
            shape.item = _shape_of(each.item_type)
        elif isinstance(each, StructType):
            if each.tag == OTHER_TAG:
                shape.other = True
                shape.tag_field = each.tag_field or ""
                continue
            known = {f.encode_name: _shape_of(f.type) for f in each.fields if f.encode_name != _RESERVED}
            if each.tag_field is None:
                shape.known = known
            else:
                known[each.tag_field] = None
                shape.tag_field = each.tag_field
                shape.by_tag[str(each.tag)] = known
    if shape.item is None and shape.known is None and not shape.by_tag and not shape.other:
        return None
    return shape


# A high surrogate without its low one, or a low one alone; an even run of backslashes before it is text.
_LONE: Final = re.compile(
    rb"(?<!\\)(?:\\\\)*(?:\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|"
    rb"(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)

# Every escape, so that none is looked for within another; the group is half a pair without its other half.
_ESCAPE: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.", re.DOTALL
)
_HALF: Final = re.compile(rb"\\u[dD][89a-fA-F]")


def assert_utf8(data: bytes) -> None:
    """Raises `UnicodeDecodeError` for bytes that are no UTF-8: what only travels through would be read by nobody before
    the one it is for."""
    if not data.isascii():
        data.decode("utf-8")


def is_text(data: bytes) -> bool:
    """Whether JSON bytes are valid UTF-8 without escapes that stand for lone surrogates.

    A decoder checks what it reads; what it hands on verbatim must be asked here.
    """
    try:
        assert_utf8(data)
    except UnicodeDecodeError:
        return False
    return b"\\u" not in data or _LONE.search(data) is None


def mended(data: bytes) -> bytes | None:
    """JSON with U+FFFD for each escape that stands for a lone surrogate, which no decoder takes; None where there is no
    such escape."""
    if _HALF.search(data) is None:
        return None
    whole = _ESCAPE.sub(lambda found: b"\\ufffd" if found[1] else found[0], data)
    return whole if whole != data else None
