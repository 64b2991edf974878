"""Who asks, and what that one may do. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from gateway.limits.policy import Holder
from trestle.errors import CallError, Reason

CHAT: Final = "chat"
EMBEDDINGS: Final = "embeddings"
MANAGE: Final = "manage"
SCOPES: Final = frozenset({CHAT, EMBEDDINGS, MANAGE})
"""chat: completions and moderations. embeddings: vectors. manage: the account's own models and agents."""

DEFAULT_ACCOUNT: Final = "default"
"""Whose are the keys of the configuration file, and the requests of an open gateway."""


class Identity(msgspec.Struct, frozen=True, gc=False):
    """account: its id. key: what the key is called in logs and reports. models: the public names that it may ask for;
    None: all of them. limits: what the key itself may use, where that is limited."""

    account: str
    key: str
    scopes: frozenset[str] = SCOPES
    models: frozenset[str] | None = None
    limits: Holder | None = None

    def demand(self, scope: str) -> None:
        """Raises `CallError` (PERMISSION_DENIED) where the key has not this scope."""
        if scope not in self.scopes:
            raise CallError(
                Reason.PERMISSION_DENIED, f"This API key has no scope '{scope}'.", code="insufficient_scope"
            )

    def allows(self, model: str) -> bool:
        """Whether it may ask for this public name; options behind a name do not count."""
        return self.models is None or model in self.models or model.partition("?")[0] in self.models

    def demand_model(self, model: str) -> None:
        """Raises `CallError` (PERMISSION_DENIED) for a public name that it may not ask for."""
        if not self.allows(model):
            raise CallError(
                Reason.PERMISSION_DENIED,
                f"This API key may not use the model '{model}'.",
                param="model",
                code="model_not_allowed",
            )


NOBODY: Final = Identity(DEFAULT_ACCOUNT, "")
"""Who calls an open gateway without a key of an account."""
UNKNOWN: Final = Identity("", "", frozenset())
"""Who asks, until the key has been seen."""
