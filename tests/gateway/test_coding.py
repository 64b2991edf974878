"""Bodies that come compressed."""

from __future__ import annotations

import gzip
import random
import zlib

import pytest

from gateway.coding import Unpacker, unpacker
from trestle.errors import CallError

TEXT = b'{"model": "m", "messages": []} ' * 100
MOST = len(TEXT) + 1
BARE = zlib.compressobj(wbits=-zlib.MAX_WBITS)
FORMS = {
    "gzip": ("gzip", gzip.compress(TEXT)),
    "members": ("gzip", gzip.compress(TEXT[:7]) + gzip.compress(b"") + gzip.compress(TEXT[7:])),
    "deflate": ("deflate", zlib.compress(TEXT)),
    "bare": ("deflate", BARE.compress(TEXT) + BARE.flush()),
}


@pytest.mark.parametrize(("coding", "body"), FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_cut_anywhere_it_is_the_same(coding: str, body: bytes, size: int) -> None:
    packed = Unpacker(coding)
    assert b"".join(packed.feed(body[at : at + size], MOST) for at in range(0, len(body), size)) == TEXT
    packed.end()


def whole(coding: str, body: bytes) -> None:
    packed = Unpacker(coding)
    packed.feed(body, MOST)
    packed.end()


@pytest.mark.parametrize("form", ["gzip", "deflate", "bare"])
def test_less_than_all_is_broken(form: str) -> None:
    coding, body = FORMS[form]
    for end in range(len(body)):
        with pytest.raises(CallError):
            whole(coding, body[:end])


@pytest.mark.parametrize("form", FORMS)
def test_more_than_all_is_broken(form: str) -> None:
    coding, body = FORMS[form]
    with pytest.raises(CallError):
        whole(coding, body + b"\xff")


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_anything_else_is_broken(coding: str) -> None:
    chance = random.Random(1)
    for _ in range(200):
        with pytest.raises(CallError):
            whole(coding, chance.randbytes(50))


def test_a_bomb_is_unpacked_as_far_as_asked() -> None:
    body = gzip.compress(bytes(10_000_000))
    assert len(Unpacker("gzip").feed(body, 1000)) == 1000


def test_members_without_end_are_none() -> None:
    with pytest.raises(CallError):
        Unpacker("gzip").feed(gzip.compress(b"") * 1000, MOST)


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "deflate"])
def test_what_is_taken(coding: str) -> None:
    assert unpacker(coding) is not None


@pytest.mark.parametrize("coding", [None, "", "identity", "Identity"])
def test_what_is_as_it_is(coding: str | None) -> None:
    assert unpacker(coding) is None


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "x-gzip", "é"])
def test_what_is_not(coding: str) -> None:
    with pytest.raises(CallError) as caught:
        unpacker(coding)
    assert caught.value.code == "unsupported_content_encoding"
