"""What tokens cost, by the price table of the configuration. Pure; money is counted in millionths of the currency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.settings import PriceSettings, Target
from trestle.v1 import chat_pb2

MICRO: Final = 1_000_000
"""Millionths in a unit of the currency. Prices are for a million tokens, so one token costs its price in millionths."""


class Prices:
    """The table; of several lines for a target the first counts."""

    def __init__(self, table: Sequence[PriceSettings]) -> None:
        self._table = table
        self._known: dict[Target, PriceSettings | None] = {}

    def cost(self, target: Target, usage: chat_pb2.Usage) -> int:
        """Of so many tokens at that target, in millionths; zero for a target without a price."""
        if not self._table:
            return 0
        price = self._price(target)
        if price is None:
            return 0
        read, written = usage.cache_read_tokens, usage.cache_write_tokens
        plain = max(0, usage.input_tokens - read - written)
        return round(
            plain * price.input
            + read * (price.input if price.cache_read is None else price.cache_read)
            + written * (price.input if price.cache_write is None else price.cache_write)
            + usage.output_tokens * price.output
        )

    def _price(self, target: Target) -> PriceSettings | None:
        try:
            return self._known[target]
        except KeyError:
            found = next((price for price in self._table if _meant(price, target)), None)
            if len(self._known) < _MOST_KNOWN:
                self._known[target] = found
            return found


_MOST_KNOWN: Final = 10_000


def _meant(price: PriceSettings, target: Target) -> bool:
    if price.worker not in ("", target.worker) or price.upstream not in ("", target.upstream):
        return False
    model = target.model.partition("?")[0]
    return model.startswith(price.model[:-1]) if price.model.endswith("*") else model == price.model
