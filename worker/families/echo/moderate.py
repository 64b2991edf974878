"""A judgement by words alone: an input is of the categories that it names. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final, Literal

import msgspec

from trestle.errors import CallError, Reason
from trestle.v1 import moderation_pb2
from worker.families.echo.options import MODEL, fail_if_asked, options_of

CATEGORIES: Final = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
"""OpenAI's."""
_OF_IMAGES: Final = frozenset(
    ("self-harm", "self-harm/instructions", "self-harm/intent", "sexual", "violence", "violence/graphic")
)
# Longer ones first: some begin as others are.
_NAME: Final = re.compile("|".join(rf"\b{name}\b" for name in reversed(CATEGORIES)), re.IGNORECASE)
_OPTIONS: Final = frozenset({"fault", "status", "retry_after"})


class _Part(msgspec.Struct):
    """Of an image nothing is looked at."""

    type: Literal["text", "image_url"]
    text: str = ""


_INPUT: Final = msgspec.json.Decoder(str | list[str | _Part])


def moderate(request: moderation_pb2.ModerateRequest) -> moderation_pb2.ModerateResponse:
    """One result for each text, one for all parts together. Raises `CallError`."""
    model = request.model or MODEL
    options = options_of(model, request.extra_json, _OPTIONS)
    fail_if_asked(options, "judgements")
    return moderation_pb2.ModerateResponse(
        id=f"modr-{hashlib.sha256(request.input_json).hexdigest()[:24]}",
        model=model,
        results_json=msgspec.json.encode(_results(request.input_json)),
    )


def _results(input_json: bytes) -> list[dict[str, Any]]:
    try:
        given = _INPUT.decode(input_json)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _invalid(f"{error}") from None
    if isinstance(given, str):
        return [_result(given, image=False)]
    if not given:
        raise _invalid("it is empty")
    parts = [each for each in given if isinstance(each, _Part)]
    texts = [each.text if isinstance(each, _Part) else each for each in given]
    if not parts:
        return [_result(text, image=False) for text in texts]
    return [_result("\n".join(texts), image=any(part.type == "image_url" for part in parts))]


def _result(text: str, *, image: bool) -> dict[str, Any]:
    named = {found.lower() for found in _NAME.findall(text)}
    return {
        "flagged": bool(named),
        "categories": {name: name in named for name in CATEGORIES},
        "category_scores": {name: float(name in named) for name in CATEGORIES},
        "category_applied_input_types": {
            name: ["text", "image"] if image and name in _OF_IMAGES else ["text"] for name in CATEGORIES
        },
    }


def _invalid(why: str) -> CallError:
    return CallError(Reason.INVALID_REQUEST, f"Invalid value for 'input': {why}.", param="input")
