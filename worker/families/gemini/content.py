"""Parts of a message as parts of a turn: texts, images, documents, audio. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from msgspec import Raw

from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2
from worker.families.gemini.plan import camel
from worker.request_json import data_url, object_of, refuse, text_of, type_of

Object: TypeAlias = dict[str, Any]

# Members of a part of Gemini's own that hold data, and what may stand beside them.
_DATA: Final = frozenset({"inlineData", "fileData"})
HINTS: Final = frozenset({"mediaResolution", "videoMetadata", "partMetadata"})
_AUDIO: Final[Mapping[str, str]] = {"wav": "audio/wav", "mp3": "audio/mp3"}
# Media types by the ending of a name or URL: what Gemini knows to read.
_BY_ENDING: Final[Mapping[str, str]] = {
    "3gp": "video/3gpp",
    "aac": "audio/aac",
    "aiff": "audio/aiff",
    "avi": "video/avi",
    "csv": "text/csv",
    "flac": "audio/flac",
    "flv": "video/x-flv",
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
    "htm": "text/html",
    "html": "text/html",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "json": "application/json",
    "m4a": "audio/m4a",
    "md": "text/markdown",
    "mov": "video/mov",
    "mp3": "audio/mp3",
    "mp4": "video/mp4",
    "mpeg": "video/mpeg",
    "mpg": "video/mpeg",
    "ogg": "audio/ogg",
    "opus": "audio/opus",
    "pdf": "application/pdf",
    "png": "image/png",
    "rtf": "text/rtf",
    "txt": "text/plain",
    "wav": "audio/wav",
    "webm": "video/webm",
    "webp": "image/webp",
    "wmv": "video/wmv",
    "xml": "text/xml",
}
# Types that clients write and that are none, to the API.
_COMMON_ERRORS: Final[Mapping[str, str]] = {"image/jpg": "image/jpeg"}
_PATH: Final = re.compile(r"[?#]")
# How base64 of a file begins, where neither a data: URL nor a name says what it is.
_BY_MAGIC: Final = (
    ("JVBERi", "application/pdf"),
    ("iVBORw0KGgo", "image/png"),
    ("/9j/", "image/jpeg"),
    ("R0lGOD", "image/gif"),
    ("UklGR", "image/webp"),
)


def refused(what: str, where: str) -> CallError:
    """Something that the API has no form for."""
    return refuse("gemini", what, where)


def part_of(part: chat_pb2.ContentPart, where: str, files: str) -> Object | None:
    """One part; None for a text without a character, which the API refuses. files: what `files/...` stands for.

    Raises `CallError` (UNSUPPORTED, INVALID_REQUEST) naming the place.
    """
    arm = part.WhichOneof("part")
    if arm is None:
        raise CallError(Reason.INVALID_REQUEST, f"{where} holds nothing.", param=where)
    out = _PARTS[arm](part, where, files)
    if out and part.extra_json and arm != "other_json":
        for name, value in object_of(part.extra_json, where).items():
            if camel(name) in HINTS:
                out[camel(name)] = value
    return out or None


def _text(part: chat_pb2.ContentPart, where: str, files: str) -> Object:
    return {"text": part.text} if part.text else {}


def _refusal(part: chat_pb2.ContentPart, where: str, files: str) -> Object:
    return {"text": part.refusal} if part.refusal else {}


def _image(part: chat_pb2.ContentPart, where: str, files: str) -> Object:
    return _by_url(part.image.url, f"{where}.image_url.url", files, "image/jpeg")


def _audio(part: chat_pb2.ContentPart, where: str, files: str) -> Object:
    kind = part.audio.format.lower()
    return {"inlineData": {"mimeType": _AUDIO.get(kind, f"audio/{kind}"), "data": part.audio.data}}


def _file(part: chat_pb2.ContentPart, where: str, files: str) -> Object:
    file, here = part.file, f"{where}.file"
    by_name = _by_ending(file.filename)
    if file.file_id:
        return _by_url(file.file_id, f"{here}.file_id", files, by_name)
    data = file.file_data
    if not data:
        raise CallError(Reason.INVALID_REQUEST, f"{here} has neither file_id nor file_data.", param=here)
    if ":" in data[:9]:
        return _by_url(data, f"{here}.file_data", files, by_name)
    kind = by_name or next((each for start, each in _BY_MAGIC if data.startswith(start)), "")
    if not kind:
        raise refused("files whose type neither a data: URL nor the filename tells", f"{here}.file_data")
    return {"inlineData": {"mimeType": kind, "data": data}}


def _by_url(url: str, where: str, files: str, otherwise: str) -> Object:
    """Data of a data: URL; anything else goes by reference, as the API itself knows to fetch it. otherwise: the media
    type where the URL does not show it, empty to say none."""
    if url[:5].lower() == "data:":
        kind, data = data_url(url, where)
        return {"inlineData": {"mimeType": _COMMON_ERRORS.get(kind.lower(), kind), "data": data}}
    found: Object = {"fileUri": files + url if url.startswith("files/") else url}
    kind = _by_ending(_PATH.split(url, maxsplit=1)[0]) or otherwise
    if kind:
        found = {"mimeType": kind, **found}
    return {"fileData": found}


def _by_ending(name: str) -> str:
    return _BY_ENDING.get(name.rpartition(".")[2].lower(), "")


def _other(part: chat_pb2.ContentPart, where: str, files: str) -> Object:
    """A part of Gemini's own, or a video as some vendors write it."""
    found = object_of(part.other_json, where)
    kind = type_of(found)
    if kind == "video_url" and "video_url" in found:
        url = found["video_url"]
        named = text_of(url) or text_of(object_of(url, f"{where}.video_url").get("url"))
        return _by_url(named, f"{where}.video_url", files, "video/mp4")
    own = {camel(name): value for name, value in found.items() if camel(name) in _DATA | HINTS}
    if not own.keys() & _DATA:
        raise refused(f"content parts of type {kind!r}", where)
    return {**own, **{name: _camel_members(own[name], where) for name in own.keys() & _DATA}}


def _camel_members(value: Raw, where: str) -> dict[str, Raw]:
    return {camel(name): each for name, each in object_of(value, where).items()}


_PARTS: Final[Mapping[str, Callable[[chat_pb2.ContentPart, str, str], Object]]] = {
    "text": _text,
    "refusal": _refusal,
    "image": _image,
    "audio": _audio,
    "file": _file,
    "other_json": _other,
}
