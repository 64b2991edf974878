"""Moderations: what is asked goes on as it is, and so does what is answered."""

from __future__ import annotations

import json

import pytest

from gateway.openai.moderations import DEFAULT_MODEL, decode_moderation, encode_moderation
from trestle.errors import CallError
from trestle.v1 import moderation_pb2


@pytest.mark.parametrize("given", [b'"a\\u00e9"', b'["a", "b"]', b'[{"type":"text","text":"a"}]'])
def test_the_input_is_not_touched(given: bytes) -> None:
    asked = decode_moderation(b'{"input":%b,"model":"m","more":1.0}' % given)
    expected = moderation_pb2.ModerateRequest(input_json=given, extra_json=b'{"more":1.0}')
    assert (asked.model, asked.request) == ("m", expected)


@pytest.mark.parametrize("model", [b"", b',"model":null'])
def test_openais_own_default_where_no_model_is_named(model: bytes) -> None:
    asked = decode_moderation(b'{"input":"a"%b}' % model)
    assert asked.model == DEFAULT_MODEL
    assert asked.request.extra_json == b""


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b"{}", "input", "missing_required_parameter"),
        (b'{"input":null}', "input", "missing_required_parameter"),
        (b'{"input":1}', "input", "invalid_type"),
        (b'{"input":{}}', "input", "invalid_type"),
        (b'{"input":"a","model":""}', "model", "invalid_value"),
    ],
)
def test_what_is_wrong_is_named(body: bytes, param: str, code: str) -> None:
    with pytest.raises(CallError) as raised:
        decode_moderation(body)
    assert (raised.value.param, raised.value.code) == (param, code)


def test_the_answer() -> None:
    ask = decode_moderation(b'{"input":"a","model":"m"}')
    results = b'[{"flagged":true, "category_scores":{"hate":1E-3}}]'
    said = moderation_pb2.ModerateResponse(
        id="modr-1", model="real", results_json=results, extra_json=b'{"id":"forged","more":1}'
    )
    written = encode_moderation(said, ask)
    assert results in written
    assert json.loads(written) == {"id": "modr-1", "model": "real", "results": json.loads(results), "more": 1}
    assert json.loads(encode_moderation(moderation_pb2.ModerateResponse(id="x"), ask)) == {
        "id": "x",
        "model": "m",
        "results": [],
    }
