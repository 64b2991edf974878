"""What tokens cost."""

from __future__ import annotations

import pytest

from gateway.prices import Prices
from gateway.settings import PriceSettings, Target
from trestle.v1 import chat_pb2

PRICES = Prices(
    [
        PriceSettings(worker="a", upstream="eu", model="m", input=9, output=9),
        PriceSettings(model="m", input=2, output=8, cache_read=0.5, cache_write=2.5),
        PriceSettings(worker="a", model="m-*", input=1, output=1),
    ]
)


def cost(target: Target, **usage: int) -> int:
    return PRICES.cost(target, chat_pb2.Usage(**usage))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "usage", "micros"),
    [
        (Target(worker="a", model="m"), {"input_tokens": 1_000_000}, 2_000_000),
        (Target(worker="a", model="m?x=1"), {"output_tokens": 3}, 24),
        (Target(worker="a", upstream="eu", model="m"), {"input_tokens": 1, "output_tokens": 1}, 18),
        (Target(worker="b", upstream="eu", model="m"), {"input_tokens": 1, "output_tokens": 1}, 10),
        (
            Target(worker="b", model="m"),
            {"input_tokens": 100, "cache_read_tokens": 40, "cache_write_tokens": 20, "output_tokens": 10},
            40 * 2 + 20 + 50 + 80,
        ),
        (Target(worker="a", model="m-large"), {"input_tokens": 5, "cache_read_tokens": 5}, 5),
        (Target(worker="b", model="m-large"), {"input_tokens": 5}, 0),
        (Target(worker="b", model="m"), {"input_tokens": 1, "cache_read_tokens": 3}, 2),
    ],
)
def test_the_first_line_that_means_the_target(target: Target, usage: dict[str, int], micros: int) -> None:
    assert cost(target, **usage) == cost(target, **usage) == micros


def test_without_a_table_nothing_costs() -> None:
    assert Prices([]).cost(Target(worker="a", model="m"), chat_pb2.Usage(input_tokens=5)) == 0
