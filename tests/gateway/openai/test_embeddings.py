"""Embeddings: inputs in every form, and vectors in the form that was asked for."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from gateway.openai.embeddings import decode_embed, encode_embeddings
from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2, embedding_pb2

Embedding = embedding_pb2.Embedding
PACKED = struct.pack("<2f", 0.5, -2.0)


def ask(**members: Any) -> Any:
    return decode_embed(json.dumps({"model": "m", "input": "a", **members}).encode())


def told(*embeddings: Embedding, form: str | None = None, **fields: Any) -> Any:
    usage = fields.pop("usage", chat_pb2.Usage(input_tokens=3))
    response = embedding_pb2.EmbedResponse(model="real", embeddings=embeddings, usage=usage, **fields)
    return json.loads(encode_embeddings(response, ask(encoding_format=form)))


@pytest.mark.parametrize(
    ("inputs", "expected", "single"),
    [
        ("a", ["a"], True),
        (["a", "b"], ["a", "b"], False),
        ([1, 2], [[1, 2]], True),
        ([[1], [2, 3]], [[1], [2, 3]], False),
        (["a", [7]], ["a", [7]], False),
    ],
)
def test_inputs_keep_their_form(inputs: Any, expected: list[Any], single: bool) -> None:
    request = ask(input=inputs).request
    found = [each.text if each.HasField("text") else list(each.tokens.ids) for each in request.inputs]
    assert (found, request.single) == (expected, single)


def test_what_is_set_and_what_is_absent() -> None:
    asked = ask(dimensions=8, user="u", encoding_format="base64", vendor=1)
    expected = embedding_pb2.EmbedRequest(
        dimensions=8, user="u", encoding_format="base64", single=True, extra_json=b'{"vendor":1}'
    )
    expected.inputs.add(text="a")
    assert (asked.model, asked.request, asked.base64) == ("m", expected, True)
    smallest = embedding_pb2.EmbedRequest(single=True)
    smallest.inputs.add(text="a")
    assert (ask().request, ask().base64, ask(encoding_format="float").base64) == (smallest, False, False)


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [1, "a"]}, "input"),
        ({"input": [[]]}, "input[0]"),
        ({"dimensions": 0}, "dimensions"),
        ({"encoding_format": ""}, "encoding_format"),
        ({"encoding_format": ["float"]}, "encoding_format"),
        ({"model": ""}, "model"),
    ],
)
def test_what_is_wrong_is_named(members: Any, param: str) -> None:
    with pytest.raises(CallError) as raised:
        ask(**members)
    assert (raised.value.reason, raised.value.param) == (Reason.INVALID_REQUEST, param)


@pytest.mark.parametrize("embedding", [Embedding(float32_le=PACKED), Embedding(values_json=b"[0.5,-2.0]")])
def test_either_form_becomes_the_one_asked_for(embedding: Embedding) -> None:
    assert told(embedding)["data"] == [{"object": "embedding", "index": 0, "embedding": [0.5, -2.0]}]
    (entry,) = told(embedding, form="base64")["data"]
    assert base64.b64decode(entry["embedding"]) == PACKED


def test_numbers_that_nobody_asked_to_change_go_on_as_they_came() -> None:
    values = b"[0.10,1E-3, -0.0]"
    response = embedding_pb2.EmbedResponse(embeddings=[Embedding(values_json=values)])
    assert values in encode_embeddings(response, ask())


@pytest.mark.parametrize("form", [None, "float", "base64", "base64_int8"])
def test_a_form_that_only_the_upstream_knows_goes_on_as_it_came(form: str | None) -> None:
    (entry,) = told(Embedding(other_json=b'"gP0ABRF/AQI="'), form=form)["data"]
    assert entry["embedding"] == "gP0ABRF/AQI="


@pytest.mark.parametrize("embedding", [Embedding(float32_le=PACKED), Embedding(values_json=b"[0.5,-2.0]")])
def test_numbers_are_numbers_where_a_form_was_asked_for_that_nobody_here_knows(embedding: Embedding) -> None:
    asked = ask(encoding_format="base64_int8")
    assert (asked.request.encoding_format, asked.base64) == ("base64_int8", False)
    assert told(embedding, form="base64_int8")["data"][0]["embedding"] == [0.5, -2.0]


@pytest.mark.parametrize("values", [[[0.5, -2.0], [1.0, 0.0]], [0.5, None], [1e39]])
def test_what_base64_of_32_bits_cannot_hold_goes_on_as_it_came(values: Any) -> None:
    """A vector for each token, as endpoints without pooling give them, also to SDKs, which always ask for base64."""
    embedding = Embedding(values_json=json.dumps(values).encode())
    assert told(embedding, form="base64")["data"][0]["embedding"] == values


@pytest.mark.parametrize("form", [None, "float", "base64"])
def test_vectors_of_another_form_or_name_go_on_as_they_came(form: str | None) -> None:
    both, named = told(
        Embedding(other_json=b'{"float":[1.0]}'), Embedding(extra_json=b'{"embeddings":[[1.0]]}'), form=form
    )["data"]
    assert both == {"object": "embedding", "index": 0, "embedding": {"float": [1.0]}}
    assert named == {"object": "embedding", "index": 1, "embeddings": [[1.0]]}


def test_half_a_number_at_the_end_is_left_out() -> None:
    assert told(Embedding(float32_le=PACKED + b"\0"))["data"][0]["embedding"] == [0.5, -2.0]


def test_the_whole_answer() -> None:
    first, second = Embedding(values_json=b"[1]", extra_json=b'{"index":9,"more":1}'), Embedding(values_json=b"[2]")
    usage = chat_pb2.Usage(input_tokens=3, extra_json=b'{"cost":2,"prompt_tokens":0}')
    assert told(first, second, usage=usage, extra_json=b'{"id":"e","model":"forged"}') == {
        "object": "list",
        "model": "real",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [1], "more": 1},
            {"object": "embedding", "index": 1, "embedding": [2]},
        ],
        "usage": {"prompt_tokens": 3, "total_tokens": 3, "cost": 2},
        "id": "e",
    }


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (chat_pb2.Usage(input_tokens=3, total_tokens=5), {"prompt_tokens": 3, "total_tokens": 5}),
        (chat_pb2.Usage(input_tokens=3, output_tokens=1), {"prompt_tokens": 3, "total_tokens": 4}),
        (
            chat_pb2.Usage(input_tokens=3, estimated=True),
            {"prompt_tokens": 3, "total_tokens": 3, "estimated": True},
        ),
    ],
)
def test_totals_and_estimates(usage: chat_pb2.Usage, expected: dict[str, Any]) -> None:
    assert told(Embedding(values_json=b"[1]"), usage=usage)["usage"] == expected
