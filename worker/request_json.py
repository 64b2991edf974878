"""Reading what a request carries as JSON, for the families that must look inside: faults are named in the client's
words. Pure."""

from __future__ import annotations

import base64
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from msgspec import Raw

from trestle.errors import CallError, Reason
from trestle.openjson import members

VECTOR_FORMS: Final = frozenset({"", "float", "base64"})
"""What `EmbedRequest.encoding_format` says where it asks for what every family can give."""

_IDLE: Final = frozenset({b"null", b"false"})


def object_of(data: bytes | Raw, where: str) -> dict[str, Raw]:
    """The members of a JSON object, each as it was written; none of empty bytes. Raises `CallError` (INVALID_REQUEST)
    for anything else."""
    if not bytes(data):
        return {}
    try:
        return members(data)
    except (msgspec.DecodeError, RecursionError):
        raise CallError(Reason.INVALID_REQUEST, f"{where}: not a JSON object.", param=where) from None


def text_of(raw: Raw | None) -> str:
    """The value of a member that is a string; empty for any other."""
    if raw is None or bytes(raw)[:1] != b'"':
        return ""
    text: str = msgspec.json.decode(raw, type=str)
    return text


def type_of(found: Mapping[str, Raw]) -> str:
    """The `type` member of an object, empty where it has none."""
    return text_of(found.get("type"))


def asking(found: Mapping[str, Raw]) -> Iterable[str]:
    """Names of members that ask for something: not null, not false."""
    return (name for name, value in found.items() if bytes(value) not in _IDLE)


def as_object(text: str, otherwise: str) -> Raw | dict[str, str]:
    """JSON that is an object as it is; a blank text as `{}`; anything else inside an object, under `otherwise`,
    so that nothing of it is lost."""
    if not text or text.isspace():
        return {}
    data = text.encode()
    try:
        members(data)
    except (msgspec.DecodeError, RecursionError):
        return {otherwise: text}
    return Raw(data)


def refuse(family: str, what: str, where: str) -> CallError:
    """Something that the family's upstreams have no form for."""
    return CallError(
        Reason.UNSUPPORTED, f"The {family} family does not take {what}.", param=where, code="unsupported_value"
    )


def data_url(url: str, where: str) -> tuple[str, str]:
    """Media type and base64 of a data: URL (RFC 2397). Raises `CallError` (INVALID_REQUEST)."""
    head, comma, data = url[5:].partition(",")
    if not comma:
        raise CallError(Reason.INVALID_REQUEST, f"{where} is not a data: URL.", param=where, code="invalid_value")
    kind, *options = [each.strip() for each in head.split(";")]
    if "base64" not in (option.lower() for option in options):
        data = base64.b64encode(urllib.parse.unquote_to_bytes(data)).decode()
    elif "%" in data:
        data = urllib.parse.unquote(data)
    return kind.lower() or "text/plain", data
