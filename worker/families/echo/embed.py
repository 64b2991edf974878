"""Vectors out of nothing but a hash: equal inputs have equal ones, and that is all they tell. Pure."""

from __future__ import annotations

import hashlib
import math
import struct
from typing import Final

from trestle.errors import CallError, Reason
from trestle.v1 import embedding_pb2
from worker.families.echo.options import fail_if_asked, options_of
from worker.families.echo.words import count

_DIMENSIONS: Final = 256
_MOST: Final = 65_536
_OPTIONS: Final = frozenset({"fault", "status", "retry_after"})


def embed(request: embedding_pb2.EmbedRequest) -> embedding_pb2.EmbedResponse:
    """One vector of length one for each input. Raises `CallError`."""
    options = options_of(request.model, request.extra_json, _OPTIONS)
    fail_if_asked(options, "embeddings")
    dimensions = request.dimensions if request.HasField("dimensions") else _DIMENSIONS
    if not 1 <= dimensions <= _MOST:
        raise CallError(
            Reason.INVALID_REQUEST, f"Invalid value for 'dimensions': 1 to {_MOST} are possible.", param="dimensions"
        )
    response = embedding_pb2.EmbedResponse(model=request.model)
    tokens = 0
    for at, each in enumerate(request.inputs):
        arm = each.WhichOneof("input")
        if arm == "text":
            seed = b"text" + each.text.encode()
            tokens += count(each.text)
        elif arm == "tokens":
            ids = each.tokens.ids
            seed = b"tokens" + struct.pack(f"<{len(ids)}I", *ids)
            tokens += len(ids)
        else:
            where = f"input[{at}]"
            raise CallError(Reason.UNSUPPORTED, "The echo family embeds texts and token ids only.", param=where)
        response.embeddings.add(float32_le=_vector(seed, dimensions))
    response.usage.input_tokens = tokens
    return response


def _vector(seed: bytes, dimensions: int) -> bytes:
    # A shorter vector is the beginning of a longer one, as of models that are trained for it.
    numbers = struct.unpack(f"<{dimensions}i", hashlib.shake_128(seed).digest(4 * dimensions))
    length = math.sqrt(math.fsum(number * number for number in numbers)) or 1.0
    return struct.pack(f"<{dimensions}f", *(number / length for number in numbers))
