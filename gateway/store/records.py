"""What the database keeps, as the rest of the gateway sees it. Instants are Unix seconds. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from gateway.limits.policy import Limits


class Account(msgspec.Struct, frozen=True, gc=False):
    """Who pays. A disabled one's keys open nothing. limits: of all its keys together."""

    id: str
    name: str
    disabled: bool
    created: int
    limits: Limits = Limits()


class Key(msgspec.Struct, frozen=True):
    """id: `tr_` and its prefix. digest: SHA-256 of the whole. scopes: what it may do. models: the public names it may
    ask for, None for all. expires: zero for never. limits: its own."""

    id: str
    account: str
    name: str
    digest: bytes
    scopes: list[str]
    models: list[str] | None
    disabled: bool
    expires: int
    created: int
    limits: Limits = Limits()


class OwnModel(msgspec.Struct, frozen=True):
    """A model that an account added. defaults: a JSON object of members of a chat request, empty for none.
    credential: the name of the account's own, empty for the operator's."""

    account: str
    name: str
    worker: str
    upstream: str
    model: str
    defaults: bytes
    created: int
    credential: str = ""


class OwnCredential(msgspec.Struct, frozen=True):
    """What an account shows an upstream. sealed: for that worker and upstream alone, by the pair's public key. hint:
    its last characters, where it is long enough."""

    account: str
    name: str
    worker: str
    upstream: str
    sealed: bytes
    pair: str
    hint: str
    created: int


class OwnAgent(msgspec.Struct, frozen=True):
    """An agent of an account. definition: as `gateway.agents.Agent` writes itself, JSON."""

    account: str
    name: str
    definition: bytes
    created: int


class Names(msgspec.Struct, frozen=True):
    """All that an account added."""

    models: Sequence[OwnModel] = ()
    agents: Sequence[OwnAgent] = ()
    credentials: Sequence[OwnCredential] = ()


class Delta(msgspec.Struct, frozen=True):
    """What changed up to a version. whole: this is everything, and what is not in it is gone. names: by account, each
    complete. gone: ids of keys that are no more."""

    version: int
    whole: bool
    accounts: Sequence[Account] = ()
    keys: Sequence[Key] = ()
    names: Mapping[str, Names] = {}
    gone: Collection[str] = ()
