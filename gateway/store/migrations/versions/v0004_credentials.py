"""Credentials that accounts bring along, sealed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """From limits."""
    op.create_table(
        "credentials",
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("worker", sa.String(128), nullable=False),
        sa.Column("upstream", sa.String(128), nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("pair", sa.String(16), nullable=False),
        sa.Column("hint", sa.String(8), nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("account", "name", name="pk_credentials"),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name="fk_credentials_account"),
    )
    op.add_column("models", sa.Column("credential", sa.String(128), nullable=False, server_default=""))
