"""Sealed credentials: for one account, worker and upstream, and who has the key."""

from __future__ import annotations

import base64

import pytest

from trestle.sealed import MAX_SEALED_BYTES, Purpose, SealError, key_bytes, new_pair, pair_name, seal, unseal

PURPOSE = Purpose("acct_1", "openai", "eu")
SECRET = "sk-très-secret"


def test_who_has_the_key_opens_what_was_sealed_for_it() -> None:
    pair = new_pair()
    sealed = seal(key_bytes(pair.public), PURPOSE, SECRET)
    assert SECRET.encode() not in sealed
    assert unseal([key_bytes(pair.private)], PURPOSE, sealed) == SECRET
    assert seal(key_bytes(pair.public), PURPOSE, SECRET) != sealed
    assert pair.name == pair_name(key_bytes(pair.public))


def test_an_older_key_opens_what_was_sealed_before() -> None:
    old, new = new_pair(), new_pair()
    keys = [key_bytes(new.private), key_bytes(old.private)]
    for pair in (old, new):
        assert unseal(keys, PURPOSE, seal(key_bytes(pair.public), PURPOSE, SECRET)) == SECRET
    with pytest.raises(SealError, match="store it anew"):
        unseal(keys[:1], PURPOSE, seal(key_bytes(old.public), PURPOSE, SECRET))


@pytest.mark.parametrize("field", Purpose._fields)
def test_for_another_purpose_it_is_of_no_use(field: str) -> None:
    pair = new_pair()
    sealed = seal(key_bytes(pair.public), PURPOSE, SECRET)
    with pytest.raises(SealError, match="is not for this account") as caught:
        unseal([key_bytes(pair.private)], PURPOSE._replace(**{field: "other"}), sealed)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("text", ["", "x", "kein Schlüssel", base64.b64encode(b"short").decode()])
def test_a_key_that_is_none(text: str) -> None:
    with pytest.raises(SealError, match="is not a key"):
        key_bytes(text)


def test_the_longest_secret_fits_a_calls_metadata() -> None:
    longest = Purpose("acct_" + "a" * 24, "w" * 128, "u" * 128)
    assert len(seal(key_bytes(new_pair().public), longest, "s" * 4096)) < MAX_SEALED_BYTES


def test_what_is_no_box_is_not_opened() -> None:
    with pytest.raises(SealError):
        unseal([key_bytes(new_pair().private)], PURPOSE, b"nothing")
