"""Credentials that an account brings along, sealed so that the workers' upstreams alone get to see them.

A secret is put into a libsodium sealed box for a worker's public key, together with whose it is and for which worker
and upstream: who opens it checks that, so that one account's box is of no use to another.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from typing import Final, NamedTuple

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

METADATA_KEY: Final = "x-trestle-credential-bin"
"""Under which a sealed credential travels beside a call."""
MAX_SEALED_BYTES: Final = 6 * 1024
_SIZE: Final = 32


class SealError(Exception):
    """A key that is none, or a box that cannot be opened, or is not for this call. The message holds no secret."""


class Purpose(NamedTuple):
    """Whose a credential is, by the account's id, and what for: the gateway's name of the worker, and the
    upstream's."""

    account: str
    worker: str
    upstream: str


class Pair(NamedTuple):
    """A sealing pair, both in base64. name: of the pair, from its public key."""

    name: str
    private: str
    public: str


def new_pair() -> Pair:
    """A pair that nobody has."""
    private = PrivateKey.generate()
    public = bytes(private.public_key)
    return Pair(pair_name(public), _text(bytes(private)), _text(public))


def pair_name(public: bytes) -> str:
    """By which a pair is told from others."""
    return hashlib.sha256(public).hexdigest()[:12]


def key_bytes(text: str) -> bytes:
    """A key from its base64. Raises `SealError`."""
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _SIZE:
        raise SealError("is not a key as `trestle seal-keys` makes them")
    return key


def seal(public: bytes, purpose: Purpose, secret: str) -> bytes:
    """The secret for this purpose and no other."""
    return SealedBox(PublicKey(public)).encrypt(json.dumps([*purpose, secret]).encode())


def unseal(private_keys: Sequence[bytes], purpose: Purpose, sealed: bytes) -> str:
    """The secret, by whichever of our keys it was sealed for. Raises `SealError`."""
    for key in private_keys:
        try:
            text = SealedBox(PrivateKey(key)).decrypt(sealed)
        except CryptoError:
            continue
        *meant, secret = json.loads(text)
        if Purpose(*meant) != purpose:
            raise SealError("The credential is not for this account, worker and upstream.")
        return str(secret)
    raise SealError("The credential was sealed for a key that this worker does not have; store it anew.")


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode()
