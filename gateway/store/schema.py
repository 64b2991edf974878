"""The tables as they are today. The migrations make them; a test holds the two together."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

METADATA: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

ACCOUNTS: Final = Table(
    "accounts",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("disabled", Boolean, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("limits", Text, nullable=False, server_default="{}"),  # JSON
)
KEYS: Final = Table(
    "keys",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("account", String(64), ForeignKey("accounts.id"), nullable=False, index=True),
    Column("name", String(128), nullable=False),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("scopes", Text, nullable=False),  # JSON
    Column("models", Text, nullable=False),  # JSON
    Column("disabled", Boolean, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("limits", Text, nullable=False, server_default="{}"),  # JSON
)
MODELS: Final = Table(
    "models",
    METADATA,
    Column("account", String(64), ForeignKey("accounts.id"), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("worker", String(128), nullable=False),
    Column("upstream", String(128), nullable=False),
    Column("model", String(256), nullable=False),
    Column("defaults", Text, nullable=False),  # JSON, or empty
    Column("credential", String(128), nullable=False, server_default=""),  # a name of `credentials`, or empty
    Column("created", BigInteger, nullable=False),
)
CREDENTIALS: Final = Table(
    "credentials",
    METADATA,
    Column("account", String(64), ForeignKey("accounts.id"), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("worker", String(128), nullable=False),
    Column("upstream", String(128), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("pair", String(16), nullable=False),
    Column("hint", String(8), nullable=False),
    Column("created", BigInteger, nullable=False),
)
AGENTS: Final = Table(
    "agents",
    METADATA,
    Column("account", String(64), ForeignKey("accounts.id"), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("definition", Text, nullable=False),  # JSON
    Column("created", BigInteger, nullable=False),
)
# One row. Whoever writes anything counts it up first, and so waits for the one before: versions are seen in order.
VERSION: Final = Table(
    "version",
    METADATA,
    Column("one", BigInteger, CheckConstraint("one = 1", name="one_row"), primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
)
# What each version changed: an account, a key, or the names (models and agents) of an account.
CHANGES: Final = Table(
    "changes",
    METADATA,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),
    Column("ref", String(64), nullable=False),
)
# One row for each request; see gateway/ledger/rows.py. No foreign keys: rows outlive what they name.
USAGE: Final = Table(
    "usage",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("at", BigInteger, nullable=False, index=True),
    Column("account", String(64), nullable=False),
    Column("key", String(128), nullable=False),
    Column("agent", String(128), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("model", String(256), nullable=False),
    Column("stream", Boolean, nullable=False),
    Column("worker", String(128), nullable=False),
    Column("upstream", String(128), nullable=False),
    Column("target_model", String(256), nullable=False),
    Column("attempts", Text, nullable=False),  # JSON
    Column("outcome", String(16), nullable=False),
    Column("status", BigInteger, nullable=False),
    Column("reason", String(64), nullable=False),
    Column("finish", String(32), nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cache_read_tokens", BigInteger, nullable=False),
    Column("cache_write_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("audio_tokens", BigInteger, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("cost", BigInteger, nullable=False),
    Column("latency_ms", BigInteger, nullable=False),
    Column("first_token_ms", BigInteger, nullable=False),
    Column("request", String(128), nullable=False),
    Column("session", String(128), nullable=False),
    Column("client", String(128), nullable=False),
    Column("user", String(128), nullable=False),
    Index("ix_usage_account_at", "account", "at"),
)
