"""Limits of accounts and keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """From the ledger."""
    for table in ("accounts", "keys"):
        op.add_column(table, sa.Column("limits", sa.Text, nullable=False, server_default="{}"))
