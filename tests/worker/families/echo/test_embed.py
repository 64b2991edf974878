"""Vectors out of nothing but a hash."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.echo import FAMILY

from trestle.errors import CallError, Reason
from trestle.v1 import embedding_pb2

EmbedInput, TokenIds = embedding_pb2.EmbedInput, embedding_pb2.TokenIds


def embedded(*inputs: str | list[int], model: str = "echo", **fields: Any) -> embedding_pb2.EmbedResponse:
    each = [EmbedInput(text=i) if isinstance(i, str) else EmbedInput(tokens=TokenIds(ids=i)) for i in inputs]
    return FAMILY.embed(embedding_pb2.EmbedRequest(model=model, inputs=each, **fields))


def vectors(response: embedding_pb2.EmbedResponse) -> list[tuple[float, ...]]:
    return [struct.unpack(f"<{len(e.float32_le) // 4}f", e.float32_le) for e in response.embeddings]


def test_one_for_each_input() -> None:
    response = embedded("one", "two words", [1, 2, 3], "one")
    first, second, third, again = vectors(response)
    assert len(first) == 256
    assert first == again
    assert len({first, second, third}) == 3
    assert response.model == "echo"
    assert (response.usage.input_tokens, response.usage.output_tokens) == (1 + 2 + 3 + 1, 0)


@given(st.text(max_size=50), st.integers(1, 600))
def test_of_length_one(text: str, dimensions: int) -> None:
    (vector,) = vectors(embedded(text, dimensions=dimensions))
    assert len(vector) == dimensions
    assert math.isclose(math.hypot(*vector), 1, rel_tol=1e-6)


def test_a_short_one_points_where_the_long_one_begins() -> None:
    (short,), (long,) = vectors(embedded("x", dimensions=4)), vectors(embedded("x", dimensions=8))
    scale = short[0] / long[0]
    assert short == pytest.approx([scale * each for each in long[:4]], rel=1e-5)


@pytest.mark.parametrize(
    ("fields", "reason", "param"),
    [
        ({"dimensions": 0}, Reason.INVALID_REQUEST, "dimensions"),
        ({"dimensions": 10**6}, Reason.INVALID_REQUEST, "dimensions"),
        ({"model": "other"}, Reason.MODEL_NOT_FOUND, "model"),
        ({"model": "echo?chunk=4"}, Reason.INVALID_REQUEST, "model"),
        ({"extra_json": b'{"echo": {"delay_ms": 4}}'}, Reason.INVALID_REQUEST, "echo.delay_ms"),
        ({"extra_json": b"[]"}, Reason.INVALID_REQUEST, "extra_json"),
        ({"model": "echo?fault=stall"}, Reason.UNSUPPORTED, "model"),
        ({"model": "echo?fault=error&status=429"}, Reason.UPSTREAM_RATE_LIMITED, None),
        ({"model": "echo?fault=cut"}, Reason.UPSTREAM_TRUNCATED, None),
    ],
)
def test_what_cannot_be(fields: dict[str, Any], reason: Reason, param: str | None) -> None:
    with pytest.raises(CallError) as caught:
        embedded("x", **fields)
    assert (caught.value.reason, caught.value.param) == (reason, param)


@pytest.mark.parametrize("each", [EmbedInput(other_json=b'{"image": ""}'), EmbedInput()])
def test_of_nothing_else(each: embedding_pb2.EmbedInput) -> None:
    with pytest.raises(CallError) as caught:
        FAMILY.embed(embedding_pb2.EmbedRequest(model="echo", inputs=[EmbedInput(text="x"), each]))
    assert (caught.value.reason, caught.value.param) == (Reason.UNSUPPORTED, "input[1]")


def test_what_is_ignored_is_named() -> None:
    def ignored(**fields: Any) -> list[str]:
        return FAMILY.ignored_embed_params(embedding_pb2.EmbedRequest(model="echo", **fields))

    assert ignored() == []
    assert ignored(user="u") == ["user"]
    assert ignored(encoding_format="float") == ignored(encoding_format="base64") == []
    assert ignored(user="u", encoding_format="base64_int8") == ["user", "encoding_format"]
    assert ignored(user="u", extra_json=b'{"wings":2,"echo":"x","none":null}') == ["user", "wings"]
