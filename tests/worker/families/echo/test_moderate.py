"""Moderations: there and back through OpenAI's own form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.echo import FAMILY, Object
from support.schemas import assert_valid

from gateway.openai.moderations import decode_moderation, encode_moderation
from trestle.errors import CallError, Reason
from trestle.v1 import moderation_pb2

IMAGE = {"type": "image_url", "image_url": {"url": "https://x.example/hate.png"}}


def judged(given: Any, model: str = "echo", **members: Any) -> Object:
    ask = decode_moderation(json.dumps({"model": model, "input": given, **members}).encode())
    ask.request.model = ask.model
    answer: Object = json.loads(encode_moderation(FAMILY.moderate(ask.request), ask))
    return answer


def flags(given: Any) -> list[list[str]]:
    """The categories that each result flags."""
    results = judged(given)["results"]
    assert [result["flagged"] for result in results] == [True in result["categories"].values() for result in results]
    return [[name for name, is_so in result["categories"].items() if is_so] for result in results]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Peace.", [[]]),
        ("", [[]]),
        ("Such Violence!", [["violence"]]),
        ("violence/graphic", [["violence/graphic"]]),
        ("self-harm, and violence/graphic violence", [["self-harm", "violence", "violence/graphic"]]),
        ("hate/violence", [["hate", "violence"]]),
        ("nonviolence, hateful", [[]]),
        (["hate", "love"], [["hate"], []]),
        ([{"type": "text", "text": "hate"}, IMAGE], [["hate"]]),
        ([IMAGE], [[]]),
        (["sexual", {"type": "text", "text": "hate"}], [["hate", "sexual"]]),
    ],
)
def test_what_is_named_is_flagged(given: Any, expected: list[list[str]]) -> None:
    assert flags(given) == expected


def test_an_answer_has_openais_form() -> None:
    answer = judged([{"type": "text", "text": "violence"}, IMAGE])
    assert_valid(answer, "moderations.response")
    assert answer["model"] == "echo"
    (result,) = answer["results"]
    assert result["category_scores"]["violence"] == 1.0
    assert result["category_applied_input_types"]["violence"] == ["text", "image"]
    assert result["category_applied_input_types"]["hate"] == ["text"]
    assert answer == judged([{"type": "text", "text": "violence"}, IMAGE])


def test_who_names_no_model_gets_the_only_one() -> None:
    assert FAMILY.moderate(moderation_pb2.ModerateRequest(input_json=b'"x"')).model == "echo"


@pytest.mark.parametrize(
    ("given", "model", "reason", "param"),
    [
        ("x", "other", Reason.MODEL_NOT_FOUND, "model"),
        ("x", "echo?tokens=3", Reason.INVALID_REQUEST, "model"),
        ("x", "echo?fault=stall", Reason.UNSUPPORTED, "model"),
        ("x", "echo?fault=error&status=429", Reason.UPSTREAM_RATE_LIMITED, None),
        ([], "echo", Reason.INVALID_REQUEST, "input"),
        ([1], "echo", Reason.INVALID_REQUEST, "input"),
        ([{"type": "audio"}], "echo", Reason.INVALID_REQUEST, "input"),
    ],
)
def test_what_cannot_be(given: Any, model: str, reason: Reason, param: str | None) -> None:
    with pytest.raises(CallError) as caught:
        judged(given, model)
    assert (caught.value.reason, caught.value.param) == (reason, param)
